"""Protobuf read and written without generated code, against the real library."""

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileOptions
from hypothesis import given
from hypothesis import strategies as st

from kit.protobuf import (
    MAX_PEEKED_FIELDS,
    MalformedMessage,
    bytes_field,
    fields,
    peek,
    peek_text,
    text_field,
    varint_field,
)


def test_fields_are_found_at_any_depth() -> None:
    file = FileDescriptorProto(name="a.proto", package="p", message_type=[DescriptorProto(name="First")])
    file.options.java_package = "j"
    file.options.optimize_for = FileOptions.CODE_SIZE
    message = file.SerializeToString()
    assert peek(message, (1,)) == b"a.proto"
    assert peek_text(message, (4, 1)) == "First"
    assert peek_text(message, (8, 1)) == "j"
    assert peek(message, (8, 9)) == FileOptions.CODE_SIZE
    assert peek(message, (8,)) == file.options.SerializeToString()


def test_what_is_not_there_is_none_and_empty_text() -> None:
    message = FileDescriptorProto(name="a.proto").SerializeToString()
    assert peek(message, (2,)) is None
    assert peek(message, (1, 1)) is None
    assert peek_text(message, (4, 1)) == ""
    assert peek(b"", (1,)) is None
    # A number where a message should be.
    assert peek(varint_field(1, 5), (1, 1)) is None


def test_the_first_of_several_counts() -> None:
    message = text_field(1, "first") + text_field(1, "second")
    assert peek_text(message, (1,)) == "first"
    tasks = bytes_field(1, bytes_field(1, text_field(1, "a"))) + bytes_field(1, bytes_field(1, text_field(1, "b")))
    assert peek_text(tasks, (1, 1, 1)) == "a"


@pytest.mark.parametrize(
    "message",
    [
        b"\xff" * 11,
        b"\x0a\x05ab",
        b"\x0b",
        b"\x0f\x00",
        b"\x00",
        b"\x09\x01",
        b"\x0d",
        b"\x08",
        b"\x0a\xff\xff\xff\xff\x0f",
    ],
)
def test_malformed_bytes_are_no_message(message: bytes) -> None:
    assert peek(message, (1,)) is None
    assert peek(message, (5,)) is None
    with pytest.raises(MalformedMessage):
        list(fields(message))


def test_a_message_of_very_many_fields_is_not_searched_to_its_end() -> None:
    many = varint_field(2, 1) * MAX_PEEKED_FIELDS
    assert peek_text(many[: -len(varint_field(2, 1))] + text_field(1, "x"), (1,)) == "x"
    assert peek(many + text_field(1, "x"), (1,)) is None


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_no_bytes_make_it_fail(message: bytes, path: list[int]) -> None:
    peek(message, path)


@given(name=st.text(max_size=300), number=st.integers(-(2**31), 2**31 - 1), nested=st.lists(st.text(max_size=20)))
def test_what_is_written_the_library_reads(name: str, number: int, nested: list[str]) -> None:
    written = text_field(1, name) + b"".join(bytes_field(4, text_field(1, each)) for each in nested)
    written += varint_field(10, number)
    read = FileDescriptorProto.FromString(written)
    assert read.name == name
    assert list(read.public_dependency) == ([number] if number else [])
    assert [each.name for each in read.message_type] == nested
    numbers = [field for field, _ in fields(written)]
    assert numbers == [1] * bool(name) + [4] * len(nested) + [10] * bool(number)
