"""Zips made by hand, byte by byte, because no zip tool would make them: acceptable ones, malformed ones, lying ones."""

import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from contract.zip_rules.records import MAX_ENTRIES, RECORD_BYTES
from tests.zips import make_zip

DESCRIPTOR = 1 << 3
UTF8 = 1 << 11
FULL32 = 0xFFFFFFFF
STORED = zipfile.ZIP_STORED


def deflate(data: bytes, level: int = 9) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


@dataclass
class Part:
    """One entry. `local` and `central` replace fields of one header only, which is how zips lie."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"
    method: int = 0
    flags: int = 0
    mode: int = 0o100644
    system: int = 3
    packed: bytes | None = None
    descriptor: bytes = b""
    extra: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)

    def _fields(self, offset: int) -> dict[str, Any]:
        packed = self.packed_data()
        crc = zlib.crc32(self.data)
        return {
            "signature": b"PK", "name": self.name, "flags": self.flags, "method": self.method, "crc": crc,
            "packed": len(packed), "size": len(self.data), "extra": self.extra, "disk": 0, "offset": offset,
            "attributes": self.mode << 16, "comment": b"",
        }  # fmt: skip

    def packed_data(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == 8 else self.data

    def local_header(self, offset: int) -> bytes:
        f = self._fields(offset)
        if self.flags & DESCRIPTOR:
            f.update(crc=0, packed=0, size=0)
        f.update({"signature": b"PK\3\4", **self.local})
        numbers = (20, f["flags"], f["method"], 0, 33, f["crc"], f["packed"], f["size"])
        head = struct.pack("<4s5H3L2H", f["signature"], *numbers, len(f["name"]), len(f["extra"]))
        return head + bytes(f["name"] + f["extra"])

    def central_header(self, offset: int) -> bytes:
        f = {**self._fields(offset), "signature": b"PK\1\2", **self.central}
        numbers = (self.system << 8 | 20, 20, f["flags"], f["method"], 0, 33, f["crc"], f["packed"], f["size"])
        lengths = (len(f["name"]), len(f["extra"]), len(f["comment"]), f["disk"], 0, f["attributes"], f["offset"])
        return struct.pack("<4s6H3L5H2L", f["signature"], *numbers, *lengths) + bytes(
            f["name"] + f["extra"] + f["comment"]
        )


def build(*parts: Part, prefix: bytes = b"", before_end: bytes = b"", zip64: dict[str, int] | None = None,
          comment: bytes = b"", suffix: bytes = b"", **end: int) -> bytes:  # fmt: skip
    """A zip of these parts; `end` replaces fields of the end record, `zip64` (empty: no lie) adds the 64-bit one."""
    body, directory = prefix, b""
    for part in parts:
        directory += part.central_header(len(body))
        body += part.local_header(len(body)) + part.packed_data() + part.descriptor
    offset = len(body)
    body += directory + before_end
    count = len(parts)
    plain = {"disk": 0, "directory_disk": 0, "here": count, "entries": count, "size": len(directory), "offset": offset}
    if zip64 is not None:
        wide = {**plain, "signature": 0x06064B50, "record_size": 44, "at": len(body), "disks": 1, **zip64}
        record = struct.pack("<LQ2H2L4Q", wide["signature"], wide["record_size"], 45, 45, *[wide[key] for key in plain])
        body += record + struct.pack("<LLQL", 0x07064B50, 0, wide["at"], wide["disks"])
    fields = {**plain, **end}
    comment_size = fields.pop("comment_size", len(comment))
    return body + struct.pack("<4s4H2LH", b"PK\5\6", *fields.values(), comment_size) + comment + suffix


def descriptor(data: bytes, packed: bytes, *, signed: bool, wide: bool) -> bytes:
    plain = struct.pack("<LQQ" if wide else "<LLL", zlib.crc32(data), len(packed), len(data))
    return (b"PK\7\x08" if signed else b"") + plain


def streamed(*, signed: bool, wide: bool, method: int = 8, data: bytes = b"hello") -> Part:
    """An entry as a writer makes it that cannot seek back."""
    packed = deflate(data) if method == 8 else data
    tail = descriptor(data, packed, signed=signed, wide=wide)
    return Part(data=data, method=method, flags=DESCRIPTOR, descriptor=tail)


def many_entries(count: int) -> bytes:
    """A directory of `count` equal entries: cheap to make, dear to whoever builds an object for each."""
    part = Part(name=b"a", data=b"")
    local, directory = part.local_header(0), part.central_header(0) * count
    end = (0, 0, 0xFFFF, 0xFFFF, len(directory), len(local))
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(local))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(directory), 1)
    return local + directory + wide + locator + struct.pack("<4s4H2LH", b"PK\5\6", *end, 0)


class Case(NamedTuple):
    sentence: str
    data: bytes
    says: str = ""


_ZEROS = bytes(2 * 1024**2)
_NESTED = "/".join(["d"] * 64).encode()
_WIDE = Part(
    local={"packed": FULL32, "size": FULL32, "extra": zip64_extra(5, 5)},
    central={"packed": FULL32, "size": FULL32, "offset": FULL32, "extra": zip64_extra(5, 5, 0)},
)
_ROOT = Part(name=b"./", data=b"", mode=0o40755)
_FOLDER = Part(name=b"d/", data=b"", mode=0o40755)


def _named(*names: bytes, flags: int = 0, system: int = 3) -> bytes:
    return build(*[Part(name=name, flags=flags, system=system) for name in names])


def _pair(first: str, second: str) -> bytes:
    def part(name: str) -> Part:
        return Part(name=name.encode(), flags=UTF8, data=b"", mode=0o40755 if name.endswith("/") else 0o100644)

    return build(part(first), part(second))


GOOD = [
    Case("an empty zip", build()),
    Case("one stored file", build(Part())),
    Case("one deflated file", build(Part(method=8))),
    Case("an archive comment", build(Part(), comment=b"made by hand")),
    Case("a comment on an entry", build(Part(central={"comment": b"made by hand"}))),
    Case("a folder before its file", build(_FOLDER, Part(name=b"d/a"))),
    Case("a folder after its file", build(Part(name=b"d/a"), _FOLDER)),
    Case("a folder nobody lists", build(Part(name=b"d/a"), Part(name=b"d/b"))),
    Case("a name of 64 parts", build(Part(name=_NESTED))),
    Case("a name in UTF-8", build(Part(name="Übung/ß.txt".encode(), flags=UTF8))),
    Case("a name in UTF-8 without the flag", build(Part(name="Übung/ß.txt".encode()))),
    Case("a name in cp437", build(Part(name="Übung.txt".encode("cp437"), system=0, mode=0))),
    Case("names that Windows reserves", build(Part(name=b"aux"), Part(name=b"nul.txt"), Part(name=b"x. "))),
    Case("what macOS adds", build(Part(name=b"d/.DS_Store"), Part(name=b"__MACOSX/d/._a"), Part(name=b"d/a"))),
    Case("no Unix mode", build(Part(system=0, mode=0))),
    Case("a mode that is no Unix mode", build(Part(system=0, mode=0o120777))),
    Case("permissions without a type", build(Part(mode=0o600))),
    Case("a folder that hands its group on", build(Part(name=b"d/", data=b"", mode=0o42775))),
    Case("a folder deflated to two bytes", build(Part(name=b"d/", data=b"", mode=0o40755, method=8))),
    Case("an empty file deflated to nothing", build(Part(data=b"", method=8, packed=b""))),
    Case("compression hints in one header only", build(Part(method=8, central={"flags": 2}))),
    Case("padding in an extra field", build(Part(extra=b"\0\0\0"))),
    Case("a gap between two entries", build(Part(descriptor=b"gap"), Part(name=b"b"))),
    Case("entries in another order than the directory's", make_zip({"b": b"1", "a": b"2"})),
    Case("a data descriptor with a signature", build(streamed(signed=True, wide=False), Part(name=b"b"))),
    Case("a data descriptor without a signature", build(streamed(signed=False, wide=False), Part(name=b"b"))),
    Case("a wide data descriptor with a signature", build(streamed(signed=True, wide=True), Part(name=b"b"))),
    Case("a wide data descriptor without a signature", build(streamed(signed=False, wide=True), Part(name=b"b"))),
    Case("a stored entry with a data descriptor", build(streamed(signed=True, wide=False, method=0))),
    Case("an empty entry with a data descriptor", build(streamed(signed=False, wide=True, method=0, data=b""))),
    Case("zip64 sizes and offset", build(_WIDE)),
    Case("a zip64 end record", build(Part(), zip64={})),
    Case("a zip64 end record that alone says all",
         build(Part(), zip64={}, here=0xFFFF, entries=0xFFFF, size=FULL32, offset=FULL32)),
    Case("zipfile, deflated", make_zip({"a/b.txt": b"hello" * 99, "c": b""})),
    Case("zipfile, stored", make_zip({"a/b.txt": b"hello" * 99, "c": b""}, method=STORED)),
    Case("zipfile onto a pipe", make_zip({"a/b.txt": b"hello" * 99, "c": b""}, is_seekable=False)),
    Case("zipfile onto a pipe, stored", make_zip({"a/b": b"hi", "c": b""}, method=STORED, is_seekable=False)),
    Case("a small file that compresses well", build(Part(data=bytes(1024**2), method=8))),
    Case("names that differ in case", _pair("README", "ReadMe")),
    Case("names that differ in composition", _pair("\u00e9", "e\u0301")),
    Case("names that casefold alike", _pair("straße", "STRASSE")),
    Case("names that fold alike once decomposed", _pair("\u1fbc\u0301", "\u1fb4")),
    Case("a file that another needs as its folder, in another case", _pair("A", "a/b/c")),
    Case("a folder spelled in two ways", _pair("Data/x", "data/y")),
    Case("what tar makes of a folder", build(_ROOT, Part(name=b"./d/", data=b"", mode=0o40755), Part(name=b"./d/a"))),
    Case("backslashes of FAT", _named(b"d\\a", b"d\\e\\b", b"c", system=0)),
    Case("backslashes of NTFS", _named(b"d\\a", system=10)),
    Case("backslashes of NTFS by its older number", _named(b"d/e\\a", system=11)),
    Case("a folder by a backslash", build(Part(name=b"d\\", data=b"", system=0, mode=0))),
]  # fmt: skip


_NAMES = [
    Case("an absolute name", _named(b"/etc/passwd"), "absolute"),
    Case("a name that is a slash", _named(b"/"), "absolute"),
    Case("a name that climbs out", _named(b"../evil"), "'..'"),
    Case("a name that climbs out later", _named(b"a/../../evil"), "'..'"),
    Case("a name that ends by climbing", _named(b"a/.."), "'..'"),
    Case("a folder that climbs out", build(Part(name=b"../", data=b"", mode=0o40755)), "'..'"),
    Case("a file that is a dot", _named(b"."), "'.'"),
    Case("a name with two dot parts before it", _named(b"././a"), "'.'"),
    Case("a dot part before a climb", _named(b"./../evil"), "'..'"),
    Case("a dot part before an absolute name", _named(b".//etc/passwd"), "absolute"),
    Case("a dot part before a drive letter", _named(b"./C:/evil"), "drive letter"),
    Case("a name with a dot part", _named(b"a/./b"), "'.'"),
    Case("a name with two slashes", _named(b"a//b"), "empty part"),
    Case("a name that ends in two slashes", build(Part(name=b"a//", data=b"", mode=0o40755)), "empty part"),
    Case("no name", _named(b""), "empty part"),
    Case("a name with NUL", _named(b"a.txt\0.exe"), "control character"),
    Case("a name with a newline", _named(b"a\nb"), "control character"),
    Case("a name with an escape sequence", _named(b"a\x1b[2Jb"), "control character"),
    Case("a name with DEL", _named(b"a\x7f"), "control character"),
    Case("a name with a C1 control character", _named("a\x9b".encode(), flags=UTF8), "control character"),
    Case("a backslash where it is part of a name", _named(b"a\\b"), "backslash"),
    Case("a climb by backslashes where they are part of names", _named(b"..\\evil"), "backslash"),
    Case("a climb by backslashes", _named(b"..\\..\\evil", system=0), "'..'"),
    Case("a later climb by both", _named(b"a/..\\..\\evil", system=10), "'..'"),
    Case("an absolute name by a backslash", _named(b"\\evil", system=0), "absolute"),
    Case("a UNC name by backslashes", _named(b"\\\\host\\share", system=11), "absolute"),
    Case("a drive letter and a backslash", _named(b"C:\\evil", system=0), "drive letter"),
    Case("two backslashes", _named(b"a\\\\b", system=0), "empty part"),
    Case("a dot part by a backslash", _named(b"a\\.\\b", system=0), "'.'"),
    Case("one path by a slash and by a backslash", _named(b"a/b", b"a\\b", system=0), "same file"),
    Case("one path with and without a dot part", _named(b"a", b"./a"), "same file"),
    Case("one path with and without a dot part by a backslash", _named(b"a", b".\\a", system=0), "same file"),
    Case("the folder of all twice", build(_ROOT, _ROOT), "same file"),
    Case("a file that another by a backslash needs as its folder", _named(b"a", b"a\\b", system=0), "clash"),
    Case("a backslash in the header only", build(Part(name=b"a/b", system=0, local={"name": b"a\\b"})), "named"),
    Case("a name with a drive letter", _named(b"C:/evil"), "drive letter"),
    Case("a name with a drive letter and no slash", _named(b"c:evil"), "drive letter"),
    Case("a UNC name", _named(b"//host/share"), "absolute"),
    Case("a name that is too long", _named(b"/".join([b"x" * 200] * 6)), "longer than 1024"),
    Case("a name with a part that is too long", _named(b"x" * 256), "longer than 255"),
    Case("a part that is too long in bytes only", _named(("ä" * 128).encode(), flags=UTF8), "longer than 255"),
    Case("a name that lies too deep", _named(_NESTED + b"/a"), "deeper than 64"),
    Case("a name that is no UTF-8 in spite of its flag", _named(b"\xff\xfe", flags=UTF8), "UTF-8"),
    Case("a surrogate in UTF-8", _named(b"\xed\xa0\x80", flags=UTF8), "UTF-8"),
    Case("an overlong slash in UTF-8", _named(b"..\xc0\xafevil", flags=UTF8), "UTF-8"),
    Case("the same name twice", _pair("a", "a"), "same file"),
    Case("the same folder twice", _pair("a/", "a/"), "same file"),
    Case("a file and a folder of one name", _pair("a", "a/"), "same file"),
    Case("a file that another needs as its folder", _pair("a", "a/b"), "clash"),
    Case("a folder before the file of its name", _pair("a/b", "a"), "clash"),
]  # fmt: skip


def _mode(mode: int, name: bytes = b"a") -> bytes:
    return build(Part(name=name, mode=mode))


_KINDS = [
    Case("a symbolic link", _mode(0o120777), "link or a device"),
    Case("a symbolic link made on macOS", build(Part(mode=0o120777, system=19)), "link or a device"),
    Case("a symbolic link by 7-Zip's attribute", build(Part(system=0, central={"attributes": 0o120777 << 16 | 0x8000})),
         "link or a device"),
    Case("a FIFO", _mode(0o010644), "link or a device"),
    Case("a character device", _mode(0o020644), "link or a device"),
    Case("a block device", _mode(0o060644), "link or a device"),
    Case("a socket", _mode(0o140644), "link or a device"),
    Case("a setuid file", _mode(0o104755), "setuid"),
    Case("a setgid file", _mode(0o102755), "setgid"),
    Case("a sticky file", _mode(0o101644), "sticky"),
    Case("a setuid file without a type", _mode(0o4755), "setuid"),
    Case("a folder with the name of a file", _mode(0o40755), "not by both"),
    Case("a file with the name of a folder", build(Part(name=b"d/", data=b"", mode=0o100644)), "not by both"),
    Case("a folder with data", build(Part(name=b"d/", data=b"x", mode=0o40755)), "data of its own"),
    Case("an encrypted entry", build(Part(flags=1)), "encrypted"),
    Case("a strongly encrypted entry", build(Part(flags=1 << 6)), "encrypted"),
    Case("an encrypted directory", build(Part(flags=1 << 13)), "encrypted"),
    Case("patched data", build(Part(flags=1 << 5)), "method"),
    Case("deflate64", build(Part(method=9)), "method 9"),
    Case("bzip2", make_zip({"a": b"hello"}, method=zipfile.ZIP_BZIP2), "method 12"),
    Case("LZMA", make_zip({"a": b"hello"}, method=zipfile.ZIP_LZMA), "method 14"),
    Case("AES", build(Part(method=99, flags=1)), "encrypted"),
]  # fmt: skip

_SIZES = [
    Case("more than the server unpacks", build(Part(central={"size": 2**31, "packed": 2**22}, method=8)), "accepts"),
    Case("2^64 bytes", build(Part(method=8, central={"size": FULL32, "extra": zip64_extra(2**64 - 1)})), "accepts"),
    Case("a stored entry of two sizes", build(Part(central={"size": 6})), "two different sizes"),
    Case("sizes that zip64 does not give", build(Part(method=8, central={"size": FULL32})), "zip64"),
    Case("an offset that zip64 does not give", build(Part(central={"offset": FULL32})), "zip64"),
    Case("a zip64 field that is too short",
         build(Part(method=8, central={"size": FULL32, "extra": b"\1\0\4\0abcd"})), "zip64"),
    Case("two zip64 fields",
         build(Part(method=8, central={"size": FULL32, "extra": zip64_extra(5) + zip64_extra(6)})), "two zip64"),
    Case("an extra field that breaks off",
         build(Part(method=8, central={"size": FULL32, "extra": b"\1\0\x40\0abcd"})), "broken extra"),
    Case("an entry that lies in another part", build(Part(central={"disk": 1})), "split"),
]  # fmt: skip

_OVERLAPPING = Part(name=b"b", central={"offset": 0})
_QUOTED = Part(name=b"outer", data=Part(name=b"inner").local_header(0) + b"hello")
_LOCALS = [
    Case("bytes before the first entry", build(Part(), prefix=b"#!/bin/sh\n"), "precedes"),
    Case("bytes before an empty directory", build(prefix=b"#!/bin/sh\n"), "precedes"),
    Case("an offset without a header", build(Part(), Part(name=b"b", central={"offset": 7})), "overlaps"),
    Case("an offset past the end", build(Part(), Part(name=b"b", central={"offset": 2**31})), "no local header"),
    Case("an offset past 2^63",
         build(Part(), Part(name=b"b", central={"offset": FULL32, "extra": zip64_extra(2**63)})), "no local header"),
    Case("a header of another kind", build(Part(local={"signature": b"PK\7\x08"})), "no local header"),
    Case("another name in the header", build(Part(local={"name": b"b.txt"})), "named b'b.txt'"),
    Case("a longer name in the header", build(Part(local={"name": b"a.txt.exe"})), "named"),
    Case("another method in the header", build(Part(local={"method": 8})), "another method"),
    Case("encryption in the header only", build(Part(local={"flags": 1})), "other flags"),
    Case("a data descriptor in the header only", build(Part(local={"flags": DESCRIPTOR})), "other flags"),
    Case("a data descriptor in the directory only", build(Part(central={"flags": DESCRIPTOR})), "other flags"),
    Case("another CRC in the header", build(Part(local={"crc": 1})), "another size or CRC"),
    Case("another size in the header", build(Part(method=8, local={"size": 6})), "another size or CRC"),
    Case("another packed size in the header", build(Part(method=8, local={"packed": 6})), "another size or CRC"),
    Case("another zip64 size in the header",
         build(Part(local={"packed": FULL32, "size": FULL32, "extra": zip64_extra(6, 5)})), "another size or CRC"),
    Case("a zip64 size missing in the header", build(Part(local={"size": FULL32})), "zip64"),
    Case("no data descriptor", build(Part(method=8, flags=DESCRIPTOR)), "after its data"),
    Case("a data descriptor that lies", build(Part(flags=DESCRIPTOR, descriptor=struct.pack("<LLL", 1, 5, 5))),
         "after its data"),
    Case("two entries with one header", build(Part(), _OVERLAPPING), "overlaps"),
    Case("an entry inside another one's data", build(_QUOTED, Part(name=b"inner", central={"offset": 35})), "overlaps"),
    Case("data that reaches into the directory", build(Part(central={"size": 60, "packed": 60})), "reaches into"),
    Case("an extra field that reaches into the directory",
         build(Part())[:28] + b"\xff\xff" + build(Part())[30:], "reaches into"),
]  # fmt: skip

_GOOD = build(Part(), Part(name=b"b"))
_ENDS = [
    Case("no bytes at all", b"", "no zip"),
    Case("text", b"hello, this is no zip" * 9, "no zip"),
    Case("a tar", b"a.txt" + bytes(1024), "no zip"),
    Case("a zip cut in its last byte", _GOOD[:-1], "bytes follow it or are missing"),
    Case("a zip cut in its end record", _GOOD[:-18], "bytes follow it or are missing"),
    Case("a zip cut in the middle", _GOOD[: len(_GOOD) // 2], "no zip"),
    Case("a zip that lost its beginning", _GOOD[10:], "should end at byte"),
    Case("one byte after the zip", build(Part(), suffix=b"\0"), "bytes follow it"),
    Case("a zip after the zip", _GOOD + _GOOD, "should end at byte"),
    Case("a comment that breaks off", build(Part(), comment=b"hello", comment_size=6), "are missing"),
    Case("a comment longer than declared", build(Part(), comment=b"hello", comment_size=4), "bytes follow it"),
    Case("an end record inside the comment", build(Part(), comment=build()), "more than one end record"),
    Case("bytes between directory and end record", build(Part(), before_end=b"PK\5\5\0\0"), "should end at byte"),
    Case("a directory that begins later", build(Part(), offset=41), "should end at byte"),
    Case("a directory past the end", build(Part(), offset=2**31), "should end at byte"),
    Case("more entries than there are", build(Part(), here=2, entries=2), "breaks off at entry 1"),
    Case("fewer entries than there are", build(Part(), Part(name=b"b"), here=1, entries=1), "more than the 1 entries"),
    Case("no entries although there is one", build(Part(), here=0, entries=0), "more than the 0 entries"),
    Case("a directory entry of another kind", build(Part(central={"signature": b"PK\1\3"})), "breaks off at entry 0"),
    Case("a directory entry that breaks off",
         build(Part())[:-24] + build(Part())[-24:].replace(b"xt", b"", 1), "should end at byte"),
    Case("the last part of a split zip", build(Part(), disk=1, directory_disk=1), "split"),
    Case("a directory in another part", build(Part(), directory_disk=1), "split"),
    Case("entries in another part", build(Part(), here=0), "split"),
    Case("one entry too many", many_entries(MAX_ENTRIES + 1), f"{MAX_ENTRIES} and"),
    Case("entries as many as 16 bits say", build(Part(), here=0xFFFF, entries=0xFFFF), "entry 1 of 65535"),
    Case("a directory that is too large", build(Part(), size=MAX_ENTRIES * RECORD_BYTES + 1), "directory of"),
    Case("zip64 that contradicts the count", build(Part(), zip64={"here": 2, "entries": 2}), "contradict"),
    Case("zip64 that contradicts the offset", build(Part(), zip64={"offset": 7}), "contradict"),
    Case("zip64 with a huge directory", build(Part(), zip64={"size": 2**63}, size=FULL32), "directory of"),
    Case("zip64 with a huge offset", build(Part(), zip64={"offset": 2**63}, offset=FULL32), "should end at byte"),
    Case("zip64 of a split zip", build(Part(), zip64={"disks": 2}), "split"),
    Case("zip64 elsewhere", build(Part(), zip64={"at": 0}), "zip64 end record"),
    Case("zip64 without its record", build(Part(), zip64={"signature": 0}), "zip64 end record"),
    Case("zip64 with more than it should have", build(Part(), zip64={"record_size": 2**40}), "zip64 end record"),
]  # fmt: skip

MALFORMED = [*_NAMES, *_KINDS, *_SIZES, *_LOCALS, *_ENDS]

_PACKED = deflate(b"hello")
_HALF = {"size": 2**29}
LYING = [
    Case("megabytes out of nothing", build(Part(data=b"", method=8, local=_HALF, central=_HALF)), "holds 0 bytes"),
    Case("megabytes out of no deflate", build(Part(data=b"", packed=b"\xff", method=8, local=_HALF, central=_HALF)),
         "damaged"),
    Case("a wrong CRC", build(Part(packed=b"jello")), "CRC"),
    Case("a wrong CRC of deflated data", build(Part(method=8, packed=deflate(b"jello"))), "CRC"),
    Case("more data than declared", build(Part(method=8, packed=deflate(b"hello" * 9))), "more than the 5 bytes"),
    Case("a bomb that declares five bytes", build(Part(method=8, packed=deflate(_ZEROS))), "more than the 5 bytes"),
    Case("less data than declared", build(Part(method=8, packed=deflate(b"hell"))), "holds 4 bytes"),
    Case("no deflate at all", build(Part(method=8, packed=b"\xff\xff\xff\xff")), "damaged"),
    Case("deflate that breaks off", build(Part(method=8, packed=_PACKED[:-1])), "does not end where"),
    Case("bytes after the deflated data", build(Part(method=8, packed=_PACKED + b"x")), "does not end where"),
    Case("a chunk after the deflated data", build(Part(method=8, packed=_PACKED + bytes(2**17))), "bytes after"),
    Case("a folder with deflated data", build(Part(name=b"d/", data=b"", mode=0o40755, method=8, packed=_PACKED)),
         "more than the 0 bytes"),
    Case("nothing where something is declared", build(Part(method=8, packed=b"")), "holds 0 bytes"),
]  # fmt: skip
"""Acceptable by the headers; only who decompresses finds the lie."""
