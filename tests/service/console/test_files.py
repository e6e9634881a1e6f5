"""The files of the pages: how they are sent, under which policy, and what they may name."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import pytest

from service.app import create_app
from service.console import page
from service.console.files import PageFile, read_files
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess

STATIC = Path(page.__file__).parent / "static"
MODULES = sorted(STATIC.rglob("*.js"))


@pytest.fixture(scope="module")
def pages(repository):
    with InProcess(create_app(settings_for(repository))) as opened:
        yield opened


@pytest.mark.parametrize("path", ["/", "/console/app.js", "/console/console.css", "/docs/swagger-ui-bundle.js"])
def test_a_file_is_compressed_for_whoever_takes_that_and_not_sent_twice(pages, path):
    plain = pages.get(path, headers={"Accept-Encoding": "identity"})
    small = pages.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    refused = pages.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    assert plain.status_code == small.status_code == refused.status_code == 200
    assert plain.content == small.content == refused.content
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(plain.content)
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in refused.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    again = pages.get(path, headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert pages.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = pages.request("HEAD", path, headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(plain.content)))


def test_a_file_is_what_it_is_called(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.js").write_text("1")
    (tmp_path / "a.py").write_text("1")
    assert list(read_files(tmp_path)) == ["b/a.js"]
    assert isinstance(read_files(tmp_path)["b/a.js"], PageFile)


def test_a_file_that_is_none_is_not_found(pages):
    for path in ("/console/nothing.js", "/console/", "/console/lib", "/console/../app.py", "/console/index.html"):
        assert (pages.get(path).status_code, pages.get(path).json()["code"]) == (404, "route_not_found")


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_no_page_names_anything_outside_the_server(pages, path):
    answer = pages.get(path)
    named = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", answer.text)
    assert named
    assert not [each for each in named if re.match(r"[a-z]+:|/", each)]
    for each in named:
        if not each.startswith("#"):
            assert pages.get("/" + each).status_code == 200, each


def test_the_console_runs_its_own_files_alone(pages):
    policy = pages.get("/").headers["content-security-policy"]
    assert policy == page.POLICY
    assert "unsafe" not in policy
    assert "'self'" in policy


def test_the_script_within_swagger_ui_is_allowed_by_its_digest_and_no_other(pages):
    answer = pages.get("/docs")
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    allowed = re.search(r"script-src ([^;]*)", answer.headers["content-security-policy"])[1].split()
    assert set(allowed) == {"'self'", *(f"'sha256-{digest}'" for digest in digests)}
    assert len(scripts) == 1
    assert re.search(r"script-src 'self';", pages.get("/redoc").headers["content-security-policy"])


def test_redoc_takes_no_picture_from_elsewhere(pages):
    assert "cdn.redoc.ly" not in pages.get("/redoc/redoc.standalone.js").text


def test_the_page_can_be_left_out(repository):
    with InProcess(create_app(settings_for(repository, console=False))) as opened:
        assert [opened.get(path).status_code for path in ("/", "/console/app.js", "/docs")] == [404, 404, 200]


@pytest.mark.parametrize("prefix", ["/flows", "/a/b"])
def test_the_page_is_found_with_a_slash_behind_the_prefix_and_without(repository, prefix):
    with InProcess(create_app(settings_for(repository, root_path=prefix))) as opened:
        assert opened.get(prefix).content == opened.get(f"{prefix}/").content == opened.get("/").content
        for named in re.findall(r'(?:src|href)="([^"#]+\.\w+)"', opened.get(prefix).text):
            assert named.startswith(f"{prefix}/console/")
            assert opened.get(named).status_code == 200


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_what_is_there_by_relative_paths(module):
    text = module.read_text()
    named = re.findall(r"""^(?:import|export)\b[^"';=(]*["']([^"']+)["']""", text, re.MULTILINE)
    named += re.findall(r"""\bimport\(\s*["']([^"']+)["']""", text)
    for each in named:
        assert each.startswith("."), each
        assert (module.parent / each).resolve().is_relative_to(STATIC)
        assert (module.parent / each).is_file(), each


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_writes_no_markup_keeps_no_key_and_names_no_other_place(module):
    text = module.read_text()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write\(|\beval\(|new Function", text)
    assert not re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie", text)
    outside = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org", "https://arrow.apache.org"}
    assert outside == set()


def test_what_a_first_load_takes_is_small():
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 300_000


def test_the_page_preloads_modules_that_are_there():
    named = re.findall(r'modulepreload" href="\{\{root\}\}console/([^"]+)"', (STATIC / "index.html").read_text())
    assert "app.js" in named
    assert all((STATIC / each).is_file() for each in named)
