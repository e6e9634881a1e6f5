"""The cases of the rule of `service.tabular`. Every reader of tables of text is held against them."""

from __future__ import annotations

from math import inf, nan

NUMBERS: dict[str, float] = {
    "1": 1.0,
    "-1.5": -1.5,
    "+.5": 0.5,
    "2.": 2.0,
    "007": 7.0,
    "1e3": 1000.0,
    "1.5E-3": 0.0015,
    "-0": -0.0,
    " 5": 5.0,
    "5\t": 5.0,
    "\N{NO-BREAK SPACE}5 ": 5.0,
    "1.25e-7": 1.25e-7,
    "1e400": inf,
    "inf": inf,
    "-Infinity": -inf,
    "+INF": inf,
    "nan": nan,
    "-NaN": nan,
}
"""Cells that are numbers."""

TEXTS = (
    "1_000",
    "_1",
    "1_",
    "0x10",
    "0b1",
    "1 000",
    "- 1",
    "1e",
    "e5",
    ".",
    "+",
    "--1",
    "1.2.3",
    "1f",
    "1j",
    "true",
    "none",
    "nan(1)",
    "infinit",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "\N{FULLWIDTH DIGIT ONE}",
    "1\N{ARABIC-INDIC DIGIT ONE}",
    "\N{MINUS SIGN}1",
    "\N{SUPERSCRIPT TWO}",
    "a1",
    "",
    " ",
)
"""Cells that are none."""

TABLES: dict[str, str] = {
    "no heading": "1,2|3,4|",
    "no line end after the last row": "1,2|3,4",
    "byte order mark": "\ufeff1,2|3,4|",
    "byte order mark before a heading": "\ufeffa,b|1,2|3,4|",
    "blank lines": "|  ||1,2|  |3,4|,|",
    "a heading after blank lines": "|,,|a,b|1,2|3,4|",
    "spaces": " a ,\tb|1 , 2| 3,4 |",
    "quotes": '"a","b"|"1"," 2"|3,4|',
    "names in another order": "b,a|2,1|4,3|",
    "columns beside": "name,a,b|x,1,2|y_1,3,4|",
    "names with delimiter and line end": '"n|,""x""",b,a|x,2,1|"1|2",4,3|',
    "an empty name": ",a,b|0,1,2|1,3,4|",
    "a name twice that is not wanted": "c,a,c,b|x,1,x,2|x,3,x,4|",
    "other ways to write a number": "+1,2.|3e0,.4e1|",
    "semicolons": "a;b|1;2|3;4|",
    "semicolons without a heading": "1;2|3;4|",
    "tabs": "b\ta|2\t1|4\t3|",
    "tabs without a heading": "1\t2|3\t4|",
    "semicolons beside a column of text with commas": "note, more;a;b|x, y, z;1;2|u;3;4|",
    "lines of spaces at the end": "a,b|1,2|3,4|   |\t| |",
    "a heading in a comment": "# a,b|1,2|3,4|",
    "a heading in a comment without a space": "#b;a|2;1|4;3|",
    "comments before a heading": "# made|#|# on Monday|a,b|1,2|3,4|",
    "comments before rows": "# made on Monday|1,2|3,4|",
    "an index without a name": ",a,b|7,1,2|9,3,4|",
    "a quoted index without a name": '"","a","b"|"r1",1,2|"r2",3,4|',
    "an index that was read as a column": "Unnamed: 0,b,a|0,2,1|1,4,3|",
    "an index of columns that are counted": ",0,1|7,1,2|9,3,4|",
    "an index of a name of Arrow's": "a,b,__index_level_0__|1,2,7|3,4,9|",
    "quoted numbers": '"1";"2"|"3";"4"|',
    "a line end after each cell": "a,b,|1,2,|3,4,|",
}
"""Tables of the rows [1, 2] and [3, 4] of columns a and b, with ``|`` for a line end."""

REFUSED: dict[str, str] = {
    "nothing": "",
    "blank lines alone": "| |,|",
    "a number in the place of a heading": "a,2019|1,2|3,4|",
    "an underscore": "1,2|3,1_000|",
    "another script": "1,2|3,\N{ARABIC-INDIC DIGIT FOUR}|",
    "hexadecimal": "a,b|1,2|3,0x4|",
    "an empty cell": "1,2|3,|",
    "ragged": "1,2|3|",
    "a quote that is not closed": '1,2|3,"4|',
    "text after a quote": '1,2|3,"4"x|',
    "a wanted name twice": "a,b,a|1,2,1|3,4,3|",
    "half of the names": "a,c|1,2|3,4|",
    "names in upper case": "a,B|1,2|3,4|",
    "an empty name among names": "a,,c|1,2,3|3,4,5|",
    "decimal commas": "a;b|1,0;2,0|3,0;4,0|",
    "separators of thousands": 'a,b|"1,000",2|3,4|',
    "spaces between cells": "1 2|3 4|",
    "a missing value": "a,b|1,2|3,NA|",
}
"""Texts that are no table of columns a and b."""

LINE_ENDS = ("\n", "\r\n", "\r")
