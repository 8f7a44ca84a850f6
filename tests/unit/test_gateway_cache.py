"""The gateway's cache stays within its bounds."""

from grpc_gateway.protocols.cache import Cache


def test_what_was_put_is_found_and_may_be_replaced():
    cache = Cache(10, 100)
    assert cache.get("a") is None
    cache.put("a", b"1")
    cache.put("a", b"")
    assert cache.get("a") == b""


def test_of_too_many_entries_the_one_used_longest_ago_goes():
    cache = Cache(2, 100)
    cache.put("a", b"1")
    cache.put("b", b"2")
    assert cache.get("a") == b"1"
    cache.put("c", b"3")
    assert [cache.get(key) for key in "abc"] == [b"1", None, b"3"]


def test_of_too_many_bytes_the_oldest_go():
    cache = Cache(100, 40)
    for key in "abcde":
        cache.put(key, bytes(10))
    assert [cache.get(key) is None for key in "abcde"] == [True, False, False, False, False]
    cache.put("b", bytes(1))
    cache.put("f", bytes(9))
    assert [cache.get(key) is None for key in "bcdef"] == [False] * 5


def test_what_alone_would_fill_a_quarter_is_not_kept():
    cache = Cache(100, 40)
    cache.put("a", bytes(11))
    assert cache.get("a") is None
