"""One exchange over HTTP: where redirects may lead, and with what."""

import pytest
import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, SourceRejected
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.http.exchange import Call, exchange
from identity_pipeline.readers.http.session import session
from identity_pipeline_tests.servers.faults import FaultProxy, redirect
from identity_pipeline_tests.servers.files import Authority, FileServer


def follow(url: str, *, same_origin: bool = False, method: str = "GET", headers: dict[str, str] | None = None) -> requests.Response:
    """The response to one call, its body read."""
    with exchange(session(), Call(method, url, headers or {}, same_origin=same_origin, setting="url"), ReadContext(), 10) as response:
        assert response.content is not None
        return response


@pytest.mark.parametrize("same_origin", [False, True])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("https://127.0.0.2/x?SECRET", "private or reserved"),
        ("https://169.254.169.254/latest/meta-data/", "private or reserved"),
        ("https://[::ffff:10.0.0.1]/", "private or reserved"),
        ("file:///etc/passwd", "not an https"),
        ("gopher://127.0.0.1/", "not an https"),
        ("https://2130706433/", "plain host name"),
        ("http://localhost:1/", "not encrypted"),
        ("https://u:SECRET@localhost/", "user name"),
        ("https://[x/?SECRET", "cannot be read"),
        ("https://localhost:99999/?SECRET", "cannot be read"),
    ],
)
def test_a_redirect_to_where_we_may_not_go_is_not_followed(
    server: FileServer, authority: Authority, target: str, message: str, same_origin: bool
) -> None:
    with FaultProxy(server.url, tls=authority.context()).plan([redirect(target)]) as proxy:
        with pytest.raises(ConfigurationError) as caught:
            follow(proxy.url + "/file?SECRET", same_origin=same_origin)
        assert len(proxy.requests) == 1
    assert message in str(caught.value) or (same_origin and "not sent to another host" in str(caught.value))
    assert "SECRET" not in str(caught.value)


def test_a_call_with_a_credential_stays_on_its_origin(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()) as proxy:
        proxy.plan([redirect("/file", code) for code in (301, 302, 303, 307, 308)])
        assert follow(proxy.url + "/start", same_origin=True, headers={"Authorization": "x"}).content == b"content"
        proxy.plan([redirect(f"{server.url}/file")])
        with pytest.raises(ConfigurationError, match="not sent to another host"):
            follow(proxy.url + "/start", same_origin=True)
    assert len(server.requests) == 1


def test_requests_itself_follows_no_redirect(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()).plan([redirect("/file")]) as proxy:
        assert session().get(proxy.url + "/start").status_code == 302


def test_five_redirects_are_followed_and_no_more(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()) as proxy:
        proxy.plan([redirect("/file", code) for code in (301, 302, 303, 307)] + [redirect(f"{server.url}/file", 308)])
        response = follow(proxy.url + "/start")
        assert (response.content, response.url) == (b"content", f"{server.url}/file")
        proxy.plan([redirect("/file")] * 6)
        with pytest.raises(SourceRejected, match="more than 5 times"):
            follow(proxy.url + "/start")
        proxy.plan([redirect("")])
        with pytest.raises(SourceRejected, match="without a Location"):
            follow(proxy.url + "/start")


def test_the_query_of_a_call_does_not_follow_it(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()).plan([redirect("/file?page=2")]) as proxy:
        with exchange(session(), Call("GET", proxy.url + "/start?page=2&all=true"), ReadContext(), 10):
            pass
        assert [path for _, path in proxy.requests] == ["/start?page=2&all=true", "/file?page=2"]


def test_a_post_is_not_turned_into_a_get(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()).plan([redirect("/file")]) as proxy:
        with pytest.raises(ContractBroken, match="POST"):
            follow(proxy.url + "/start", method="POST")
        assert len(proxy.requests) == 1


def test_no_credential_travels_to_another_host(server: FileServer, authority: Authority) -> None:
    sent = {"Authorization": "Bearer SECRET", "X-Api-Key": "SECRET", "Cookie": "SECRET", "If-None-Match": "tag", "User-Agent": "us"}
    server.put("/here", b"", status=302, headers={"Location": "/file"})
    follow(server.url + "/here", headers=sent)
    assert server.requests[-1][1].items() >= sent.items(), "the same host gets them again"
    with FileServer(authority) as other:
        other.put("/file", b"content")
        server.put("/away", b"", status=302, headers={"Location": f"https://localhost:{other.port}/file"})
        follow(server.url + "/away", headers=sent)
        ((_, received),) = other.requests
    assert "SECRET" not in str(received)
    assert (received["If-None-Match"], received["User-Agent"]) == ("tag", "us")
