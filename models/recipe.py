"""The recipe: all that a fit needs to know, in one TOML file or in flags. Must not import torch.

Each option is one field of one model; its key in the file, its flag, its default and its help come from there.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from pydantic.fields import FieldInfo

from service.bundle.manifest import MAX_NAME, MAX_TEXT, is_flow_name
from service.bundle.precision import Precision
from service.errors import DataError, Reason

__all__ = [
    "BaseRecipe",
    "DataRecipe",
    "FitRecipe",
    "Flag",
    "FlowRecipe",
    "Option",
    "Recipe",
    "Section",
    "flatten",
    "nearest",
    "options",
]

_MANY_ROWS = 5000
Fraction = Annotated[FiniteFloat, Field(gt=0, lt=0.9)]


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is called on the command line, where that is not the field's own name.

    Args:
        name: without the dashes; None where the field has no flag.
    """

    name: str | None


class Section(BaseModel):
    """One table of a recipe: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataRecipe(Section):
    """What is fitted: where the rows are, which of them, which columns, and how they are split."""

    source: Annotated[str | None, Flag(None)] = Field(
        None, description="a CSV, .npy, .npz or Parquet file, a folder of PNG images, or a built-in data set"
    )
    key: str | None = Field(
        None, description="the array of an .npz to fit. Default: X, x, or the only array with rows and columns"
    )
    test_key: str | None = Field(
        None,
        description="the array of the .npz that is held out for the report, whole. Default: none; rows of the "
        "fitted array are held out",
    )
    where: list[str] = Field(
        [], description="keep the rows for which this holds, such as y=0 or age>=18. Several conditions must all hold"
    )
    columns: list[str] = Field([], description="fit these columns only, by name or by number from 0")
    drop: list[str] = Field([], description="leave these columns out, by name or by number from 0")
    context: list[str] = Field(
        [],
        description="condition the flow on these columns, by name or by number from 0; they are not fitted. For an "
        ".npz: on the arrays of these names, with an entry for each row",
    )
    one_hot: list[str] = Field(
        [],
        description="columns of the context with classes, as numbers or text; each class becomes a column of 0 and 1",
    )
    prior: str | None = Field(
        None,
        description="a TOML file with the prior of the fitted columns: a box, or constraints by name. It is kept with "
        "the flow, whose draws outside of it are then drawn again",
    )
    header: bool | None = Field(
        None,
        description="whether the first line of the CSV names the columns. Default: yes if no cell is a number",
    )
    units: dict[str, str] = Field({}, description="the unit of a column, as COLUMN=UNIT")
    dequantize: bool = Field(False, description="spread each integer over its bin, in every column of integers")
    dequantize_columns: list[str] = Field([], description="dequantize these columns only")
    step: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        None, description="the width of a bin for dequantizing. Default: read from the data, column by column"
    )
    low: FiniteFloat | None = Field(
        None,
        description="the least value that can occur. Give low and high together: the flow then begins with a logit",
    )
    high: FiniteFloat | None = Field(None, description="the greatest value that can occur")
    validation: Fraction = Field(0.1, description="the fraction of rows that validate the fit and stop it early")
    test: Fraction = Field(0.1, description="the fraction of rows held out for the report; not used with a test key")
    split: Literal["random", "blocks"] = Field(
        "random",
        description="how rows are split into training, validation and held-out rows: at random, or in blocks. A block "
        "is a stretch of the file that stays together, for series and films",
    )
    group: str | None = Field(
        None,
        description="rows with the same value in this column, by name or by number from 0, stay together in the split. "
        "The column is not fitted",
    )
    split_key: str | None = Field(
        None,
        description="split by the hash of the value in this column, by name or by number from 0. A row then stays in "
        "its part, whatever the seed and the other rows are. The column is not fitted",
    )
    published: Annotated[dict[str, FiniteFloat], Flag(None)] = Field(
        {}, description="bits per dimension that others have published for this data, by name, to stand in the report"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high bound the data together: give both or neither")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low must be below high, and they are {self.low} and {self.high}")
        if self.published and not self.dequantize:
            raise ValueError("published bits per dimension are those of whole numbers: give dequantize too")
        if self.validation + self.test > 0.9:
            raise ValueError(f"validation and test leave under a tenth to train on: {self.validation} + {self.test}")
        ways = [key for key in ("group", "split_key") if getattr(self, key) is not None]
        ways += ["split"] * (self.split != "random")
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} each say how rows are split: give one of them")
        if self.columns and self.drop:
            raise ValueError("columns says which columns to fit and drop which not to: give one of them")
        for key in ("columns", "drop"):
            both = [name for name in self.context if name in getattr(self, key)]
            if both:
                raise ValueError(f"context conditions the flow on {both[0]!r}, and {key} names it too")
        if self.one_hot and not self.context:
            raise ValueError("one_hot says which columns of the context hold classes, and there is no context")
        return self


class FlowRecipe(BaseModel):
    """Which flow is fitted; the options besides `architecture` are checked by the architecture itself."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    architecture: Annotated[str, Flag("flow")] = Field("neural_spline_coupling", description="the architecture")
    whiten: bool | None = Field(
        None,
        description="remove the linear correlations first, so that the flow starts as a Gaussian with full covariance. "
        "Default: the search chooses for tables; without a search, yes for tables and no for images",
    )

    @property
    def options(self) -> dict[str, Any]:
        """The architecture's own options."""
        return dict(self.model_extra or {})


class FitRecipe(Section):
    """How it is fitted: AdamW on the mean negative log-likelihood, until validation rows gain no more."""

    precision: Precision = Field(
        "float32",
        description="what the flow is fitted in, and what its graphs take, compute and give. Take float64 for steep "
        "flows, and for columns whose spread is small beside their size; it needs about twice the time",
    )

    epochs: Annotated[int, Field(ge=1)] = Field(1000, description="most passes over the training rows")
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="rows in a step. Default: 256, or a tenth of the training rows if that is less"
    )
    learning_rate: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        None, description="the learning rate at the start. Default: 0.001, and 0.003 from 5,000 training rows on"
    )
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = Field(1e-4, description="AdamW's weight decay")
    schedule: Literal["plateau", "cosine", "constant"] = Field(
        "plateau",
        description="the learning rate: halved when validation stops gaining, a half cosine down to 0, or constant",
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        40, description="the fit ends when validation gains under 0.001 nats in this many epochs"
    )
    clip: Annotated[FiniteFloat, Field(gt=0)] = Field(
        5.0, description="the greatest norm of a gradient; a longer one is scaled down"
    )
    threads: Annotated[int, Field(ge=1)] = Field(
        1, description="torch's threads. One is fastest for tables; two are far slower on busy cores"
    )
    average: Annotated[FiniteFloat, Field(ge=0, lt=1)] = Field(
        0.99,
        description="validate and keep a running mean of the weights, which decays by this factor in each step; 0 for "
        "the last weights alone",
    )
    noise: Annotated[FiniteFloat, Field(ge=0)] | None = Field(
        None,
        description="normal noise on training rows, in standard deviations of the whitened columns. It keeps repeated "
        "values from drawing the density to infinity. Columns that are dequantized or bounded get none. Default: 0.02; "
        "if most values are repeated, 0.3 n^(-1/(D+4)) for n rows of D columns; if no values are repeated, the search "
        "chooses one of two",
    )
    search: bool = Field(
        True,
        description="choose whiten, noise, hidden and dropout by validation, and of few rows the architecture, in "
        "short fits before the fit. What you set yourself is kept. For tables only, for 60 epochs or more and a "
        "patience of 9 or more",
    )

    @property
    def least_epochs(self) -> int:
        """The epochs of a fit, at least: its first gain is in the first, and the patience after that."""
        return min(self.epochs, self.patience + 1)

    def rows_in_a_step(self, rows: int) -> int:
        """The size of a batch out of `rows` training rows."""
        return min(256, max(1, rows // 10)) if self.batch_size is None else self.batch_size

    def first_learning_rate(self, rows: int) -> float:
        """The learning rate at the start of a fit to `rows` training rows.

        Few rows are fitted too closely after some hundred steps, and smaller ones stop nearer to the best of them.
        """
        return (1e-3 if rows < _MANY_ROWS else 3e-3) if self.learning_rate is None else self.learning_rate


class BaseRecipe(Section):
    """What every fit needs: a name, a place, and a seed.

    Args:
        name: what the flow is called.
        out: the repository that the bundle goes into.
        description: one or two sentences for whoever meets the flow in a list.
        seed: everything random follows from it.
    """

    name: str | None = Field(None, description="the name of the flow")
    out: str | None = Field(None, description="the repository, a folder, that the bundle goes into")
    description: Annotated[str, Field(max_length=MAX_TEXT)] = Field(
        "", description="a sentence about the flow, for lists"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="the seed of everything random: split, weights, noise, order of rows"
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.name is not None and not is_flow_name(self.name):
            raise ValueError(
                f"the name {self.name[:80]!r} does not fit: a flow's name is 1 to 64 lower-case letters, digits, "
                "- and _, and starts with a letter or digit"
            )
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "recipe") -> Self:
        """Check a recipe given as nested mappings.

        Args:
            values: key -> value, sections nested.
            where: what to call it in an error.

        Raises:
            DataError: naming each key that is unknown (with the nearest known one) or of the wrong kind.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            reasons = tuple(
                Reason((where, *e["loc"]), _reason(cls, e)) for e in cast("list[dict[str, Any]]", error.errors())
            )
            raise DataError(f"the {where} cannot be used", reasons) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a TOML file; a relative path in it starts at the file's folder.

        Raises:
            DataError: where there is no such file, it is not TOML, or a key is unknown or of the wrong kind.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"the recipe {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"the recipe {path.name} is not TOML: {error}") from error
        return cls.parse(values, path.name).found_from(path.parent)

    def found_from(self, folder: Path) -> Self:  # noqa: ARG002
        """This recipe with its relative paths starting at `folder`; without one it is the same."""
        return self

    def override(self, values: Mapping[str, Any]) -> Self:
        """This recipe with some keys replaced, section by section.

        Args:
            values: nested as in `parse`.

        Raises:
            DataError: as `parse`.
        """
        merged = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, Mapping) else value
        return self.parse(merged)

    def published(self) -> dict[str, Any]:
        """The recipe whole, as plain JSON values, for the manifest; without a path of this machine."""
        return cast("dict[str, Any]", json.loads(json.dumps(self.model_dump(mode="json", exclude={"out"}))))


class Recipe(BaseRecipe):
    """All that a fit to rows needs.

    Args:
        data: what is fitted.
        flow: which flow.
        fit: how.

    Example:
        >>> Recipe(name="moons", out="flows", data={"source": "two-moons"}).fit.schedule
        'plateau'
    """

    data: DataRecipe = Field(default_factory=DataRecipe)
    flow: FlowRecipe = Field(default_factory=FlowRecipe)
    fit: FitRecipe = Field(default_factory=FitRecipe)

    @model_validator(mode="after")
    def _check_units(self) -> Self:
        long = next((column for column, unit in self.data.units.items() if len(unit) > MAX_NAME), None)
        if long is not None:
            raise ValueError(f"the unit of {long[:80]!r} has more than {MAX_NAME} characters")
        return self

    def found_from(self, folder: Path) -> Self:
        """This recipe with a relative `data.source` or `data.prior` starting at `folder`, where it is there."""
        beside = {
            key: str(folder / file)  # else a built-in data set, or a file that is yet to be missed
            for key, file in (("source", self.data.source), ("prior", self.data.prior))
            if file is not None and (folder / file).exists()
        }
        return self.override({"data": beside}) if beside else self

    def published(self) -> dict[str, Any]:
        """The recipe whole, as plain JSON values, for the manifest; without a path of this machine."""
        values = super().published()
        if self.data.source is not None:
            values["data"]["source"] = Path(self.data.source).name
        if self.data.prior is None:
            del values["data"]["prior"]  # as in the recipes of older bundles
        else:
            values["data"]["prior"] = Path(self.data.prior).name
        return values

    def fitted_by(self) -> dict[str, Any]:
        """The part that decides which weights come out, as ``section.key`` -> value."""
        values = self.published()
        for key in ("name", "description"):
            del values[key]
        for key in ("source", "units", "published", "prior"):
            values["data"].pop(key, None)
        return flatten(values)


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as ``section.key`` -> value.

    Example:
        >>> flatten({"seed": 1, "fit": {"clip": 5.0}})
        {'seed': 1, 'fit.clip': 5.0}
    """
    return {
        f"{section}.{key}" if isinstance(value, dict) else section: option
        for section, value in values.items()
        for key, option in (value.items() if isinstance(value, dict) else [("", value)])
    }


def _reason(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One pydantic error of a recipe as a sentence, with the nearest key where a key is unknown."""
    if error["type"] != "extra_forbidden":
        message = str(error["msg"]).removeprefix("Value error, ")
        return message if error["type"] == "value_error" else f"{message}; it is {str(error['input'])[:80]!r}"
    section = kind
    for part in error["loc"][:-1]:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        section = annotation
    return f"there is no such key{nearest(str(error['loc'][-1]), section.model_fields)}"


def nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    """A hint that ends an error: the nearest known name, or else all of them.

    Example:
        >>> nearest("epoch", ["epochs", "clip"])
        "; did you mean 'epochs'?"
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known)[:40])}"


@dataclass(frozen=True, slots=True)
class Option:
    """One field of the recipe as a flag.

    Args:
        keys: where it stands in the recipe, such as ``("fit", "clip")``.
        flag: its name on the command line, such as ``"--clip"``.
        field: the declaration.
    """

    keys: tuple[str, ...]
    flag: str
    field: FieldInfo

    @property
    def kind(self) -> Any:  # noqa: ANN401  a type as written in an annotation is no class
        """The field's annotation."""
        return self.field.annotation

    @property
    def help(self) -> str:
        """The field's description and default."""
        default = self.field.get_default(call_default_factory=True)
        shown = "" if default in (None, "", [], {}) or isinstance(default, bool) else f" [default: {default}]"
        description = self.field.description or ""
        return f"{description[:1].upper()}{description[1:]}.{shown}"


def options(kind: type[BaseRecipe] = Recipe) -> Iterator[Option]:
    """Every field of a kind of recipe that has a flag, in order."""
    for key, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for name, inner in field.annotation.model_fields.items():
                yield from _option((key, name), inner)
        else:
            yield from _option((key,), field)


def _option(keys: tuple[str, ...], field: FieldInfo) -> Iterator[Option]:
    flag = next((m.name for m in field.metadata if isinstance(m, Flag)), keys[-1])
    if flag is not None:
        yield Option(keys, f"--{flag.replace('_', '-')}", field)
