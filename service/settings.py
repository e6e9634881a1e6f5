"""The settings of a server. One field declares a setting: its flag, environment variable, default, bounds and help.

A flag of `pushforward serve` overrides an environment variable, and that the default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.bundle.manifest import NAME_PATTERN
from service.errors import InvalidArgument, Reason

__all__ = ["PREFIX", "Settings", "environment_name", "flag_name", "read_settings", "unknown_variables"]

PREFIX = "PUSHFORWARD_"
"""The beginning of the environment variables of all settings."""


_SECRET: Final = frozenset({"keys"})
"""Fields whose value no error repeats: a key may stand there by mistake."""


def _split(given: object) -> object:
    """The items of a list that was given as a text with commas, or as several such texts."""
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts):
        return tuple(item.strip() for text in texts for item in text.split(",") if item.strip())
    return given


Texts: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A list: a flag that may be given several times, or a text with commas."""

_HOST_NAME: Final = r"^(\*|(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?)$"
_ORIGIN: Final = r"^(\*|[a-z][a-z0-9+.-]*://[^/\s?#@]+/?)$"


class Settings(BaseSettings):
    """The settings of one server. The name or the description of a field tells its unit; times are in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    repository: Annotated[Path, Field(description="folder of the flows to serve")]
    default_flow: Annotated[
        str | None, Field(pattern=NAME_PATTERN, description="flow that answers requests that name none")
    ] = None
    host: Annotated[str, Field(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 for any that is free")] = 8000
    insecure: Annotated[
        bool, Field(description="answer anyone without a key, also on an address that other machines reach")
    ] = False
    keys_file: Annotated[
        Path | None, Field(description="file of hashed keys, one on a line, as `pushforward key` prints it")
    ] = None
    keys: Annotated[str | None, Field(description="the same lines, with semicolons between them")] = None
    allowed_host: Annotated[
        Texts,
        Field(description="name by which clients may ask, if it has a dot and is no address; *.NAME, or * for any"),
    ] = ()
    cors_origin: Annotated[
        Texts, Field(description="origin whose pages may use the API, such as https://example.org; * for any")
    ] = ()
    admin_port: Annotated[
        int | None,
        Field(ge=0, le=65535, description="port of its own for administration and metrics; 0 for any that is free"),
    ] = None
    admin_host: Annotated[str, Field(min_length=1, description="address to listen on with --admin-port")] = "127.0.0.1"
    tls_certificate: Annotated[
        Path | None, Field(description="file of the certificate and its chain (PEM): the server then speaks HTTPS")
    ] = None
    tls_key: Annotated[Path | None, Field(description="file of the certificate's key (PEM), without a password")] = None
    trusted_proxies: Annotated[
        Texts,
        Field(description="address whose X-Forwarded-For and X-Forwarded-Proto the access log believes; * for any"),
    ] = ("127.0.0.1",)
    root_path: Annotated[
        str | None,
        Field(
            pattern=r"^/?$|^(/[A-Za-z0-9._~-]+)+/?$",
            description="prefix under which a proxy serves the API, such as /flows, and which it may remove",
        ),
    ] = None
    console: Annotated[bool, Field(description="show the flows in a browser, at /")] = True
    workers: Annotated[
        int, Field(ge=1, le=256, description="processes that answer on one port, each with all flows loaded")
    ] = 1
    threads: Annotated[
        int,
        Field(ge=0, le=1024, description="threads of each worker for running flows; 0 for its share of the CPU quota"),
    ] = 0
    chunk_rows: Annotated[
        int,
        Field(
            ge=0,
            le=1 << 20,
            description="most rows in a batch; longer requests are cut and take turns; 0 to measure it for each flow",
        ),
    ] = 0
    max_queued_rows: Annotated[
        int, Field(ge=1, description="most rows that may wait for one direction of one flow; more get 429")
    ] = 1 << 20
    device: Annotated[
        str,
        Field(
            pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$",
            description="where flows run: cpu, cuda, or cuda:1 for the second device",
        ),
    ] = "cpu"
    device_memory_bytes: Annotated[
        int,
        Field(ge=0, description="most memory of the device for one direction of one flow, in bytes; 0 for no limit"),
    ] = 0
    device_tf32: Annotated[
        bool, Field(description="let the device multiply in TF32: faster, with errors of about 1e-3")
    ] = False
    device_required: Annotated[
        bool, Field(description="do not serve a flow that the device cannot run; otherwise such a flow runs on the CPU")
    ] = False
    isolate: Annotated[
        str,
        Field(
            pattern=rf"^(none|all|{NAME_PATTERN[1:-1]}(,{NAME_PATTERN[1:-1]})*)$",
            description="flows that run in processes of their own, not in the server: none, all, or names with commas",
        ),
    ] = "none"
    isolate_processes: Annotated[
        int, Field(ge=1, le=256, description="processes of each such flow; one is replaced while the others run")
    ] = 2
    isolate_memory_bytes: Annotated[
        int, Field(ge=0, description="most memory that such a process may allocate; 0 for no bound")
    ] = 4 << 30
    engine_hang_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="a batch of such a process, or of the device, that takes longer hangs; above any sound one",
        ),
    ] = 10.0
    max_body_bytes: Annotated[int, Field(ge=1024, description="largest body of a request, in bytes")] = 64 << 20
    max_decode_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="bytes of large bodies that a process holds at once before 429; 0 for an eighth of the memory, "
            "divided by the workers",
        ),
    ] = 0
    max_header_bytes: Annotated[int, Field(ge=1024, description="largest header of a request, in bytes")] = 16 << 10
    max_work: Annotated[int, Field(ge=1, description="work budget of one request, in values: rows * width * steps")] = (
        1 << 24
    )
    max_stream_work: Annotated[
        int, Field(ge=1, description="work budget of a sample that is streamed, in the same values")
    ] = 1 << 33
    timeout_seconds: Annotated[
        float, Field(gt=0, description="time for an answer, unless the client sets another by Pushforward-Timeout-Ms")
    ] = 30.0
    header_seconds: Annotated[float, Field(gt=0, description="time for the header of a request to arrive")] = 10.0
    body_seconds: Annotated[
        float, Field(gt=0, description="time for the body of a request to arrive, and for the client to take an answer")
    ] = 60.0
    startup_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="longest wait for all flows before the server listens; slower flows load while it serves",
        ),
    ] = 10.0
    load_seconds: Annotated[
        float, Field(gt=0, le=86400, description="a bundle that takes longer to load and to check is not served")
    ] = 60.0
    load_bytes: Annotated[
        int, Field(ge=1 << 20, description="a bundle that takes more memory to load and to check is not served")
    ] = 2 << 30
    drain_seconds: Annotated[
        float, Field(ge=0, le=3600, description="time for requests in flight to finish after SIGTERM")
    ] = 5.0
    hang_seconds: Annotated[
        float,
        Field(ge=0.5, description="time after which one of several workers is replaced if its event loop stands still"),
    ] = 5.0
    keep_alive_seconds: Annotated[
        int, Field(ge=1, description="an idle connection is closed after this time; clients should close theirs sooner")
    ] = 75
    max_connections: Annotated[
        int, Field(ge=1, description="most connections of a worker; also no more than its file descriptors allow")
    ] = 4096
    max_client_connections: Annotated[
        int, Field(ge=0, description="most connections of one client's address to a worker; 0 for no cap")
    ] = 0
    probe_seconds: Annotated[
        float, Field(gt=0, description="time for a canary row of /health/ready; a slower one counts as failed")
    ] = 5.0
    watch: Annotated[
        bool, Field(description="serve what changes in the repository's folder without being asked to")
    ] = False
    watch_seconds: Annotated[
        float, Field(gt=0, le=3600, description="with --watch, look at the folder every so many seconds")
    ] = 2.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="least severe messages to log")
    ] = "warning"
    access_log: Annotated[bool, Field(description="log a line for each request, without its query string")] = False
    log_queries: Annotated[bool, Field(description="log the query strings too")] = False

    @field_validator("allowed_host", "cors_origin")
    @classmethod
    def _check_items(cls, items: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Refuse what can never be met, such as a Host name with a port, or an origin with a path."""
        host = info.field_name == "allowed_host"
        for item in items:
            if not re.fullmatch(_HOST_NAME if host else _ORIGIN, item):
                form = "a host name without a port" if host else "an origin such as https://example.org"
                raise ValueError(f"{item!r:.80} is not {form}")
        return items

    @property
    def isolated_flows(self) -> frozenset[str] | None:
        """The names of the flows that run in processes of their own; None for all."""
        if self.isolate == "all":
            return None
        return frozenset(self.isolate.split(",")) - {"none"}


def flag_name(field: str) -> str:
    """The flag of a setting on the command line."""
    return "--" + field.replace("_", "-")


def environment_name(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def unknown_variables(environment: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The variables that are called as settings are, and are none.

    Args:
        environment: name -> value.

    Returns:
        Each with the nearest setting's variable; None where none is near.
    """
    found: list[tuple[str, str | None]] = []
    for name in sorted(environment):
        field = name.upper().removeprefix(PREFIX).lower()
        if not name.upper().startswith(PREFIX) or field in Settings.model_fields:
            continue
        near = difflib.get_close_matches(field, Settings.model_fields, 1)
        found.append((name, environment_name(near[0]) if near else None))
    return found


def read_settings(**given: Any) -> Settings:  # noqa: ANN401  each value has its field's type
    """Read the settings from the given values, then from the environment, then from the defaults.

    Args:
        given: field -> value. A field that is None, or a list without items, is read from the environment.

    Returns:
        The settings.

    Raises:
        InvalidArgument: settings are wrong; each is named by flag and environment variable.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value not in (None, ())})
    except ValidationError as error:
        reasons = tuple(_reason(str(fault["loc"][0]), fault["msg"], fault["input"]) for fault in error.errors())
        raise InvalidArgument(f"a setting is wrong: {reasons[0].reason}", reasons[1:]) from None


def _reason(field: str, message: str, value: object) -> Reason:
    shown = "" if field in _SECRET else f", and is {value!r:.80}"
    return Reason((field,), f"{flag_name(field)} ({environment_name(field)}): {message}{shown}")
