"""The page reads CSV as the server does: the same rows of the same text, and refuses what the server refuses."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from tests.browser.marked import slow

READ = """async ([bytes, piece]) => {
  const { RowReader, TableFault, readHead } = await import(new URL("console/lib/csv.js", location.href).href);
  const all = Uint8Array.from(bytes);
  const rows = [], bad = [];
  try {
    const head = readHead(all, { names: ["x", "y"], isNamed: true, context: [] });
    const reader = new RowReader(head, { names: ["x", "y"], isSingle: true });
    let rest = new Uint8Array(0);
    for (let from = head.start; from < all.length || rest.length; from += piece) {
      const next = all.slice(from, from + piece);
      const text = new Uint8Array(rest.length + next.length);
      text.set(rest);
      text.set(next, rest.length);
      const isLast = from + piece >= all.length;
      const sink = { row: (values) => rows.push([...values]), bad: (fault) => bad.push(fault.reason) };
      const used = reader.read(text, isLast, sink);
      rest = text.slice(used);
    }
    return { rows, bad, fault: null };
  } catch (error) {
    if (!(error instanceof TableFault)) throw error;
    return { rows, bad, fault: error.message };
  }
}"""

GOOD = (
    "x,y\n0.5,0.25\n1,-0.5\n",
    "0.5,0.25\n1,-0.5",
    "y;x\r\n0.25;0.5\r\n-0.5;1\r\n",
    "x\ty\r0.5\t0.25\r1\t-0.5\r",
    "\ufeffx,y\n0.5,0.25\n",
    ' x , y \n 0.5 , 0.25\n" 1 ", -0.5 \n',
    "# two moons\n# x,y\n0.5,0.25\n1,-0.5\n",
    "# a comment\nx,y\n0.5,0.25\n",
    ",x,y\n0,0.5,0.25\n1,1,-0.5\n",
    "Unnamed: 0,x,y\n0,0.5,0.25\n",
    'note,x,y\n"a, ""quoted""\nnote",0.5,0.25\nb,1,-0.5\n',
    "x,y\n\n0.5,0.25\n , \n,\n1,-0.5\n\n",
    "x,y\n+.5,2.5e-1\n1.,-5E-1\n1e0,-0.0\n",
    "x,y\n0.123456789012345678901234567890,1.7976931348623157e-5\n0.30000000000000004,100000000000000000000e-20\n",
    "x,y,x2\n0.5,0.25,a\n",
)

REFUSED = (
    "x,y\n0.5,NA\n",
    "x,y\n0.5,\n",
    "x,y\n0.5\n",
    "x,y\n0.5,0.25,1\n",
    "x,y\n0.5,nan\n",
    "x,y\n-inf,0\n",
    "x,y\n1e39,0\n",
    "x,y\n1_000,0\n",
    "x,y\n0x10,0\n",
    "x;y\n0,5;1\n",
    "x,y\n0.5,0.2 5\n",
    'x,y\n"0.5,0.25\n',
    'x,y\n0.5, "0.25"\n',
    'x, "y"\n0.5,0.25\n',
    'x,y\n"0.5"a,0.25\n',
    'x,y\n"0.5" ,0.25\n',
    "X,y\n0.5,0.25\n",
    "a,b\n0.5,0.25\n",
    "x,x,y\n1,2,3\n",
    "0.5,0.25,1\n",
    "x,y\n",
    "",
    "x,y\n1e,0\n",
    "x,y\n-,0\n",
    "x,y\n.,0\n",
    "x,y\n\u0661,0\n",
)


def of_server(server, text):
    return httpx.post(f"{server.url}/logprob", content=text.encode(), headers={"Content-Type": "text/csv"})


@pytest.mark.parametrize("piece", [slow(1), 7, slow(1000)])
def test_rows_are_those_that_the_server_reads(open_page, server, piece):
    page = open_page().page
    for text in GOOD:
        answer = of_server(server, text)
        assert answer.status_code == 200, (text, answer.text)
        found = page.evaluate(READ, [list(text.encode()), piece])
        assert (found["bad"], found["fault"]) == ([], None), text
        rows = np.array(found["rows"]).astype(np.float32)
        again = httpx.post(f"{server.url}/logprob", json={"x": rows.tolist()}).json()
        assert again["log_prob"] == answer.json()["log_prob"], text


@pytest.mark.parametrize("piece", [1, slow(1000)])
def test_what_the_server_refuses_is_no_row(open_page, server, piece):
    page = open_page().page
    for text in REFUSED:
        assert of_server(server, text).status_code in (400, 422), text
        found = page.evaluate(READ, [list(text.encode()), piece])
        assert found["fault"] or found["bad"] or not found["rows"], text
        assert found["rows"] == [], text


def test_numbers_are_the_nearest_that_there_are(open_page):
    rng = np.random.default_rng(1)
    values = rng.normal(size=2000) * 10.0 ** rng.integers(-12, 12, size=2000)
    texts = [f"{value:.{digits}g}" for value, digits in zip(values, rng.integers(1, 19, size=2000), strict=True)]
    text = "x,y\n" + "".join(f"{each},0\n" for each in texts)
    found = open_page().page.evaluate(READ, [list(text.encode()), 100_000])
    assert [row[0] for row in found["rows"]] == [float(each) for each in texts]
