"""The reader of the README's examples, held against a README of its own."""

from __future__ import annotations

import pytest

from tests.docs.readme import Example, agrees, blocks, examples, rewritten

TEXT = """
# A page
```sh
make serve
```
```console
$ echo '{"a": 1}' | \\
  cat
{"a": 1}

$ echo two
one
```
"""


def test_commands_and_answers_are_found():
    assert examples(TEXT) == [
        Example("echo '{\"a\": 1}' | \\\n  cat", '{"a": 1}'),
        Example("echo two", "one"),
    ]
    assert blocks(TEXT, "sh") == ["make serve\n"]


def test_answers_are_written_anew():
    assert [e.answer for e in examples(rewritten(TEXT))] == ['{"a": 1}', "two"]


@pytest.mark.parametrize(
    ("shown", "came", "equal"),
    [
        ('{"a": [1.0, null]}', '{"a":[1.0000001,null]}', True),
        ('{"a": 1.0}', '{"a": 1.1}', False),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1}', '{"b": 1}', False),
        ('{"a": null}', '{"a": 0.0}', False),
        ("[1.5]", "[1.5, 2]", False),
        ('{"a": 1.0}', '{"a": "1.0"}', False),
        ("ok", "ok", True),
        ("ok", "no", False),
    ],
)
def test_answers_are_compared_as_json_where_they_are_json(shown, came, equal):
    assert agrees(shown, came) is equal
