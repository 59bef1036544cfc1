"""Who may talk to the studio, and what its files give away."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from medgen.access import Access
from medgen.errors import BadInput
from medgen.graphs.run_folder import REQUEST
from medgen.settings import settings
from medgen.studio.files import Pictures, router
from medgen.studio.guard import REQUEST_BYTES, UPLOAD_BYTES, UPLOAD_PATH, Guard
from medgen.studio.pages import page

TOKEN = "correct horse battery"
HTML = {"accept": "text/html"}


def client(tmp_path: Path, token: str | None = None, host: str = "127.0.0.1") -> TestClient:
    """What answers requests to a guarded application over the runs in `tmp_path`."""
    app = FastAPI(redirect_slashes=False)
    app.include_router(router(tmp_path / "runs", Pictures()))

    @app.get("/")
    def root() -> str:
        return "inside"

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    app.post(UPLOAD_PATH)(echo)
    app.add_middleware(Guard, access=Access(host, token))
    name = "studio.example" if host == "0.0.0.0" else "127.0.0.1"
    return TestClient(app, base_url=f"http://{name}:7860", follow_redirects=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder beside a file that must never be served."""
    folder = tmp_path / "runs" / "run1"
    (folder / "candidates").mkdir(parents=True)
    (folder / REQUEST).write_text("{}")
    (folder / "trace.html").write_text("<script>alert(1)</script>")
    (folder / "checkpoints.sqlite").write_text("secret")
    (tmp_path / "runs" / "secret.png").write_text("secret")
    (tmp_path / "secret.png").write_text("secret")
    (folder / "candidates" / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


@pytest.mark.parametrize("token", [None, "", "short"])
def test_other_machines_are_let_in_only_with_a_long_token(token: str | None) -> None:
    with pytest.raises(BadInput, match="token"):
        Access("0.0.0.0", token)
    assert Access("0.0.0.0", TOKEN).token == TOKEN


def test_strange_host_names_are_refused_on_this_machine_alone(tmp_path: Path) -> None:
    here = client(tmp_path)
    assert here.get("/").status_code == 200
    assert here.get("/", headers={"host": "localhost:7860"}).status_code == 200
    assert here.get("/", headers={"host": "evil.example:7860"}).status_code == 403
    assert client(tmp_path, TOKEN, "0.0.0.0").get("/").status_code == 401


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": "http://127.0.0.1:7860"}, True),
        ({"origin": "http://127.0.0.1:9999"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
    ],
)
def test_pages_of_other_sites_cannot_send(
    tmp_path: Path, headers: dict[str, str], allowed: bool
) -> None:
    answer = client(tmp_path).post("/echo", headers=headers, content=b"x")
    assert (answer.status_code == 200) is allowed
    assert "access-control-allow-origin" not in answer.headers


def test_a_link_from_another_site_may_be_followed_but_not_embedded(tmp_path: Path) -> None:
    crossing = {"sec-fetch-site": "cross-site"}
    here = client(tmp_path)
    assert here.get("/", headers={**crossing, "sec-fetch-mode": "navigate"}).status_code == 200
    assert here.get("/", headers={**crossing, "sec-fetch-mode": "no-cors"}).status_code == 403


def test_the_token_opens_by_header_form_and_address_and_nothing_else_does(tmp_path: Path) -> None:
    there = client(tmp_path, TOKEN, "0.0.0.0")
    assert there.get("/").status_code == 401
    assert there.get("/run/run1/trace.html").status_code == 401
    assert there.post(UPLOAD_PATH, content=b"x").status_code == 401
    form = there.get("/", headers=HTML)
    assert form.status_code == 401 and 'name="token"' in form.text
    for wrong in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        bearer = {"authorization": f"Bearer {wrong}"}
        assert there.get("/", headers=bearer).status_code == 401
        assert there.post("/login", data={"token": wrong}).status_code == 401
        assert not there.cookies
    assert there.get("/", headers={"authorization": f"Bearer {TOKEN}"}).text == '"inside"'
    opened = there.post("/login", data={"token": TOKEN})
    cookie = opened.headers["set-cookie"]
    assert opened.status_code == 303 and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert there.get("/").text == '"inside"'
    by_address = client(tmp_path, TOKEN, "0.0.0.0").get("/", params={"token": TOKEN})
    assert by_address.status_code == 303 and by_address.headers["location"] == "/"


def test_bodies_have_limits_announced_or_not(tmp_path: Path) -> None:
    def unannounced(size: int):  # type: ignore[no-untyped-def]
        for _ in range(size // 1000 + 1):
            yield b"x" * 1000

    here = client(tmp_path)
    assert here.post("/echo", content=b"x" * REQUEST_BYTES).status_code == 200
    assert here.post("/echo", content=b"x" * (REQUEST_BYTES + 1)).status_code == 413
    assert here.post("/echo", content=unannounced(REQUEST_BYTES + 1)).status_code == 413
    assert here.post(UPLOAD_PATH, content=b"x" * UPLOAD_BYTES).status_code == 200
    assert here.post(UPLOAD_PATH, content=unannounced(UPLOAD_BYTES + 20_000)).status_code == 413
    assert here.post("/echo", headers={"content-length": "-1"}, content=b"x").status_code == 413
    there = client(tmp_path, TOKEN)
    assert there.post("/login", content=unannounced(REQUEST_BYTES + 1)).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/run/run1/checkpoints.sqlite",
        "/run/run1/request.json",
        "/run/run1/candidates/link.png",
        "/run/run1/../secret.png",
        "/run/run1/%2e%2e/secret.png",
        "/run/%2e%2e/secret.png",
        "/run/..%2f..%2fsecret/trace.html",
        "/run/run1/candidates/..%2f..%2fsecret.png",
        "/run//etc/passwd",
        "/run/nothing/trace.html",
        "/run/run1/overlay/..%2f..%2fsecret.png",
        "/picture/unknown.png",
    ],
)
def test_no_path_leads_out_of_a_run_or_to_its_insides(tmp_path: Path, run: Path, path: str) -> None:
    answer = client(tmp_path).get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_ratings_that_are_not_kept_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDGEN_FEEDBACK", "off")
    settings.cache_clear()
    answer = client(tmp_path).get("/ratings.csv")
    settings.cache_clear()
    assert answer.status_code == 503 and "MEDGEN_FEEDBACK=off" in answer.text


def test_a_trace_is_served_without_rights(tmp_path: Path, run: Path) -> None:
    answer = client(tmp_path).get("/run/run1/trace.html")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox;") and "default-src 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_text_of_a_page_is_escaped() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    shown = page("status.html.j2", kind="error", text=hostile)
    assert "<img" not in shown and "&lt;img" in shown
