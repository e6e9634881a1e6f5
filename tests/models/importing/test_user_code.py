"""The user's own code is found in the user's folder, and our packages of the same name do not get in its way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import models
import service
from models.importing.user_code import PACKAGE, load_user_flow
from service.errors import DataError
from tests.models.importing.test_load import CODE

MAKE = "from torch import nn\n\n\ndef make():\n    return nn.{kind}()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is the current one; `sys.path` and `sys.modules` are put back after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        if name.partition(".")[0] not in ("torch", "numpy"):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def made(spec: str) -> str:
    return type(load_user_flow(spec)).__name__


@pytest.mark.parametrize("name", ["models", "service", "my_flow", "json"])
@pytest.mark.parametrize("form", ["{}:make", "{}.py:make", "./{}.py:make"])
def test_a_module_of_any_name_is_the_user_s_own(folder: Path, name: str, form: str) -> None:
    write(folder, **{name: MAKE.format(kind="Tanh")})
    ours = sys.modules["models"], sys.modules["service"], sys.modules["json"]
    assert made(form.format(name)) == "Tanh"
    assert (sys.modules["models"], sys.modules["service"], sys.modules["json"]) == ours
    assert (models.__name__, service.__name__) == ("models", "service")


def test_a_file_is_found_wherever_it_lies_and_finds_its_siblings(folder: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    code = "from .layers import kind\nfrom siblings import other\n\n\ndef make():\n    return kind(), other()\n"
    write(
        elsewhere,
        **{
            "some-flow.v2": code.replace(
                "return kind(), other()", "assert type(other()).__name__ == 'ReLU'\n    return kind()"
            ),
            "layers": "from torch.nn import Sigmoid as kind\n",
            "siblings": "from torch.nn import ReLU as other\n",
        },
    )
    assert made(f"{elsewhere / 'some-flow.v2.py'}:make") == "Sigmoid"
    assert sys.path[0] != str(elsewhere)


def test_a_package_of_the_user_s_with_imports_of_its_own(folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").write_text("from .flow import make\n")
    write(
        folder,
        models__flow="from .layers.inner import kind\nfrom ..service import scale\n\n"
        "def make():\n    return kind(scale)\n",
        models__layers__inner="from torch.nn import Softplus as kind\n",
        service="scale = 2.0\n",
    )
    assert load_user_flow("models:make").beta == 2.0
    assert load_user_flow("models.flow:make").beta == 2.0


def test_an_installed_module_is_taken_where_the_folder_has_none(folder: Path, tmp_path_factory) -> None:
    installed = tmp_path_factory.mktemp("installed")
    write(installed, library_flows=MAKE.format(kind="Tanh"))
    sys.path.append(str(installed))
    assert made("library_flows:make") == "Tanh"
    write(folder, library_flows=MAKE.format(kind="ReLU"))
    assert made("library_flows:make") == "ReLU"


def test_the_folder_is_looked_into_first_while_the_code_runs_and_last_after_it(folder: Path) -> None:
    write(folder, first_flows="import sys\nfound = sys.path[0]\n" + CODE)
    load_user_flow("first_flows:make")
    assert sys.modules[f"{PACKAGE}.first_flows"].found == str(folder)
    assert sys.path[0] != str(folder)
    assert sys.path[-1] == str(folder)


def test_each_import_reads_the_code_anew(folder: Path, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(folder, same_name="from .parts import kind as make\n", parts="from torch.nn import ReLU as kind\n")
    write(other, same_name="from .parts import kind as make\n", parts="from torch.nn import Tanh as kind\n")
    assert made("same_name:make") == "ReLU"
    assert made(f"{other}/same_name.py:make") == "Tanh"


@pytest.mark.parametrize("name", ["models", "service"])
@pytest.mark.parametrize(
    "code",
    [
        "from {} import layer\n",
        "import {}.layers\n",
        "import {0}\n\nlayer = {0}.layer\n",
        "def make():\n    import {0}\n    return {0}.layer()\n",
    ],
    ids=["a name", "a module", "an attribute", "when called"],
)
def test_code_that_meets_a_package_of_ours_is_told_so_and_what_to_do(folder: Path, name: str, code: str) -> None:
    write(folder, user_flow=code.format(name), **{name: "from torch.nn import Tanh as layer\n"})
    hint = (
        f"met Pushforward's own package '{name}'.*Import yours by `from .{name} import ...` or `from . import {name}`"
    )
    for spec in ("user_flow:make", "./user_flow.py:make"):
        with pytest.raises(DataError, match=hint):
            load_user_flow(spec)
    write(folder, user_flow=f"from .{name} import layer as make\n")
    assert made("user_flow:make") == "Tanh"


def test_an_error_of_the_code_s_own_has_no_such_hint(folder: Path) -> None:
    write(folder, own_error="import torch\ntorch.there_is_no_such_name\n", no_module="import there_is_no_such_module\n")
    for spec in ("own_error:make", "no_module:make"):
        with pytest.raises(DataError, match=r"failed: .*there_is_no_such") as raised:
            load_user_flow(spec)
        assert "Pushforward" not in raised.value.detail


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("./no_such_file.py:make", r"there is no file 'no_such_file\.py'"),
        ("empty.py:make", r"the file empty\.py has no 'make'"),
        ("empty:make", "the module empty has no 'make'"),
        ("./empty.txt:make", r"expected MODULE:FUNCTION.*a file is given as \./my_flows\.py:make_flow"),
        ("./empty.py", "expected MODULE:FUNCTION"),
        ("./empty.py:", "expected MODULE:FUNCTION"),
        ("wrong.py:make", "importing wrong.py failed: ZeroDivisionError"),
        ("empty.nothing:make", "there is no module 'empty.nothing'"),
    ],
)
def test_a_spec_that_gives_no_flow(folder: Path, spec: str, message: str) -> None:
    write(folder, empty="", wrong="1 / 0\n")
    with pytest.raises(DataError, match=message):
        load_user_flow(spec)
