import pytest

from ivcp.serving.remote_videos import UriError, UriRules
from ivcp.serving.remote_videos.uris import HttpUri, S3Uri, follow, parse

RULES = UriRules(
    hosts=("videos.example", "*.cdn.example", "127.0.0.1", "2001:db8::7", "xn--bcher-kva.example"),
    buckets=("s3://clips/public", "s3://whole"),
    schemes=("https", "http"),
    ports=(443, 80, 8443),
)


def _refusal(uri: str, rules: UriRules = RULES) -> str:
    with pytest.raises(UriError) as caught:
        parse(uri, rules)
    assert caught.value.code == "uri_forbidden"
    return str(caught.value)


def test_a_plain_uri_is_taken_apart():
    uri = parse("HTTPS://Videos.Example:8443/a%20b/ü.mp4?sig=1%2F2#t=3", RULES)
    assert uri == HttpUri("https", "videos.example", 8443, "/a%20b/%C3%BC.mp4?sig=1%2F2")
    assert uri.authority == "videos.example:8443"
    assert str(uri) == "https://videos.example:8443/a%20b/%C3%BC.mp4"
    assert parse("https://a.cdn.example", RULES) == HttpUri("https", "a.cdn.example", 443, "/")
    assert parse("https://xn--bcher-kva.example/", RULES).authority == "xn--bcher-kva.example"
    assert parse("http://[2001:db8::7]/a", RULES).authority == "[2001:db8::7]"


def test_an_object_is_taken_apart():
    assert parse("s3://clips/public/a clip.mp4", RULES) == S3Uri("clips", "public/a clip.mp4")
    assert parse("s3://whole/ü/50%?.mp4", RULES) == S3Uri("whole", "ü/50%?.mp4")


def test_without_rules_there_are_no_uris():
    assert _refusal("https://videos.example/a", UriRules()) == "this server fetches no videos: send the video itself"


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "ftp://videos.example/a", "gopher://videos.example/", "data:,a"])
def test_other_schemes_are_refused(uri: str):
    scheme = uri.partition(":")[0]
    assert f"scheme is '{scheme}': expected https://, http://, s3://" in _refusal(uri)


def test_http_has_to_be_listed():
    rules = UriRules(hosts=("videos.example",))
    assert "scheme is 'http': expected https://, or" in _refusal("http://videos.example/a", rules)


@pytest.mark.parametrize(
    "uri", ["//videos.example/a", "videos.example/a", "", "https:videos.example", "https:///a", "https://"]
)
def test_what_is_no_whole_uri_is_refused(uri: str):
    _refusal(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/",
        "https://videos.example.evil.example/",
        "https://xvideos.example/",
        "https://evil.example#@videos.example/",
        "https://evil.example?@videos.example/",
        "https://evil.example/@videos.example/",
    ],
)
def test_other_hosts_are_refused(uri: str):
    assert "is not on this server's list" in _refusal(uri)


def test_other_ports_are_refused():
    assert "port 22 of videos.example is not allowed" in _refusal("https://videos.example:22/")


@pytest.mark.parametrize(
    "uri", ["https://name:secret@videos.example/", "https://videos.example@videos.example/", "https://@videos.example/"]
)
def test_credentials_are_refused_and_not_repeated(uri: str):
    message = _refusal(uri)
    assert "user name or password" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.01"),
        *("127.0.0.0x1", "1", "127.0.0.1.", "videos.example.", "videos.example..", ".videos.example"),
        *("videos..example", "②.example", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "videos。example", "bücher.example"),
        *("videos.example%00", "videos%2eexample", "%76ideos.example", "[::ffff:127.0.0.1%251]", "[fe80::1%eth0]"),
        *("[2001:db8::7", "2001:db8::7", "[2001:db8:0::7]", "[videos.example]", "[127.0.0.1]", "videos.example:"),
        *("videos.example:0x1bb", "videos.example:4 43", "videos.example:+443", "videos.example:1234567"),
        *("videos.example:٤٤٣", "-", "*.cdn.example", "videos.example,evil.example"),
    ],
)
def test_odd_spellings_of_a_host_are_refused(host: str):
    message = _refusal(f"https://{host}/clip.mp4?token=secret")
    assert "plainly" in message or "cannot be read" in message or "character" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example\\@videos.example/",
        "https://videos.example\\evil/",
        " https://videos.example/",
        "https://videos.example/ ",
        "https://videos.example/a b",
        "https://vid\teos.example/",
        "https://videos.example/\r\nHost: evil.example",
        "https://videos.example/\x00",
        "https://videos.example/\x7f",
        "https://videos.example/\xa0",
        "https://videos.example/\ud800",
        "s3://whole/a\nb",
        "s3://whole/a\\..\\b",
    ],
)
def test_control_characters_spaces_and_backslashes_are_refused(uri: str):
    assert "the URI has '" in _refusal(uri)


def test_a_uri_may_not_be_endless():
    assert "has 9023 characters: expected at most 8192" in _refusal("https://videos.example/" + "a" * 9000)


@pytest.mark.parametrize(
    "key", ["public/../private/a", "public/%2e%2e/a", "public/./a", "public//a", "public/", "", "/public/a"]
)
def test_keys_that_climb_are_refused(key: str):
    assert "names no object plainly" in _refusal(f"s3://clips/{key}")


@pytest.mark.parametrize(
    "uri", ["s3://clips/publicity/a", "s3://clips/a", "s3://clips2/public/a", "s3://whole2/a", "S3://other/a"]
)
def test_other_buckets_and_prefixes_are_refused(uri: str):
    _refusal(uri)


def test_a_redirect_is_followed_to_what_is_allowed():
    start = HttpUri("https", "videos.example", 443, "/deep/a?x=1")
    assert follow(start, "b.mp4", RULES).target == "/deep/b.mp4"
    assert follow(start, "/b.mp4?y=2", RULES).target == "/b.mp4?y=2"
    assert follow(start, "//a.cdn.example/c", RULES) == HttpUri("https", "a.cdn.example", 443, "/c")
    assert follow(HttpUri("http", "videos.example", 80, "/"), "https://videos.example/", RULES).scheme == "https"


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://videos.example/a", "s3://whole/a", "https://evil.example/"),
        *("//evil.example/", "//127.1/", "http://10.0.0.1/", "https://name:secret@videos.example/"),
        *("https://videos.example:22/", "/\\evil.example", "gopher://videos.example/", "https://videos.example/a b"),
        *("http://videos.example/", "https:/\tvideos.example"),
    ],
)
def test_a_redirect_to_anything_else_is_refused(location: str):
    with pytest.raises(UriError, match=r"^https://videos.example/a redirects") as caught:
        follow(HttpUri("https", "videos.example", 443, "/a?token=secret"), location, RULES)
    assert caught.value.code == "uri_forbidden"
    assert "secret" not in str(caught.value)
