import pytest
from pydantic import ValidationError

from ivcp.serving.remote_videos import UriError, UriRules


def test_nothing_is_allowed_by_default():
    rules = UriRules()
    assert not rules.allow_any
    assert not rules.allow_host("example.com")
    assert not rules.allow_object("bucket", "clip.mp4")


def test_a_name_is_allowed_exactly_and_a_pattern_all_below_it():
    rules = UriRules(hosts=("Videos.Example.com", "*.cdn.example.com", "192.0.2.7", "2001:db8::7"))
    assert rules.allow_any
    allowed = ["videos.example.com", "a.cdn.example.com", "a.b.cdn.example.com", "192.0.2.7", "2001:db8::7"]
    refused = ["example.com", "x.videos.example.com", "videos.example.com.evil.com", "evilcdn.example.com"]
    assert all(rules.allow_host(host) for host in allowed)
    assert not any(rules.allow_host(host) for host in [*refused, "cdn.example.com", ".cdn.example.com.", "192.0.2.8"])


@pytest.mark.parametrize(
    "host",
    [
        *(
            "https://a.example",
            "a.example:443",
            "a.example.",
            "a..example",
            "*",
            "*.",
            "a.*.example",
            "*.1.2",
            "*.2001:db8::7",
        ),
        *(
            "bücher.example",
            "a b",
            "a/b",
            "user@a.example",
            "127.1",
            "0x7f.1",
            "2130706433",
            "010.0.0.1",
            "[::1]",
            "::01",
        ),
        *("fe80::1%2", "-a.example", "a-.example", "", "a" * 64 + ".example", ".".join(["a" * 60] * 5)),
    ],
)
def test_a_host_is_a_plain_name_or_address(host: str):
    with pytest.raises(ValidationError, match="is no host: expected a name such as"):
        UriRules(hosts=(host,))


@pytest.mark.parametrize(
    "bucket", ["bucket", "s3://", "s3:///a", "s3://b/../c", "s3://bu/a//b", "https://bucket", "s3://b*"]
)
def test_a_bucket_is_an_s3_uri(bucket: str):
    with pytest.raises(ValidationError, match="is no bucket: expected s3://bucket"):
        UriRules(buckets=(bucket,))


def test_a_prefix_ends_at_a_slash():
    rules = UriRules(buckets=("s3://videos/ab", "s3://clips/", "s3://one/deep/file.mp4"))
    assert rules.allow_object("videos", "ab/clip.mp4")
    assert rules.allow_object("clips", "any/where.mp4")
    assert rules.allow_object("one", "deep/file.mp4")
    refused = [("videos", "abc/clip.mp4"), ("videos", "a"), ("videos", "clip.mp4"), ("clips2", "a"), ("clip", "s/a")]
    assert not any(rules.allow_object(*wanted) for wanted in [*refused, ("one", "deep/file.mp4x"), ("", "videos/ab/c")])


def test_ports_are_the_schemes_own_or_those_listed():
    assert UriRules().allow_port("https", 443)
    assert not UriRules().allow_port("https", 80)
    assert UriRules().allow_port("http", 80)
    assert [UriRules(ports=(8443,)).allow_port("https", port) for port in (8443, 443)] == [True, False]


@pytest.mark.parametrize(
    "network", ["169.254.0.0/16", "169.254.169.254/32", "fe80::/64", "fd00:ec2::/64", "224.0.0.0/8"]
)
def test_link_local_networks_and_metadata_cannot_be_listed(network: str):
    with pytest.raises(ValidationError, match="cannot be allowed"):
        UriRules(networks=(network,))


def test_a_network_is_one():
    with pytest.raises(ValidationError, match="not a valid IPv4 or IPv6 network"):
        UriRules(networks=("10.0.0.1/8",))
    assert str(UriRules(networks=("10.0.0.0/8",)).networks[0]) == "10.0.0.0/8"


def test_rules_cannot_be_changed_and_have_no_other_names():
    with pytest.raises(ValidationError, match="frozen"):
        UriRules().max_bytes = 1
    with pytest.raises(ValidationError, match="Extra inputs"):
        UriRules(host=("a.example",))


def test_a_size_beyond_the_limit_is_told():
    rules = UriRules(max_bytes=10)
    rules.check_size("s3://b/a", 10)
    with pytest.raises(UriError, match="s3://b/a has more than the 10 bytes allowed") as caught:
        rules.check_size("s3://b/a", 11)
    assert caught.value.code == "uri_too_large"
