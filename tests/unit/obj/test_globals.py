"""``--set NAME=VALUE``: what fits where, by the object's own types."""

from __future__ import annotations

import pytest

from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.obj import reader
from xdpctl.obj.globals import encode, parse, parse_all, values

SOURCE = """
enum mode { OFF, ON = 5 };
struct cfg {
  __u16 port; __be32 addr; struct { __u8 low:3; __u8 high:5; }; __u8 mac[6]; struct in6_addr v6; char name[8];
  int list[3]; union { __u32 out; __u8 raw[4]; };
};
volatile const __u32 target_ifindex = 7;
const __u32 folded = 3;
volatile const __s16 small = -4;
volatile const __u8 byte;
volatile const __u64 wide;
volatile const _Bool flag;
volatile const char name[16] = "hello";
volatile const __u8 mac[6] = {1, 2, 3, 4, 5, 6};
volatile const __be16 port = 80;
volatile const __u16 host_port = 80;
volatile const __be32 addr;
volatile struct in6_addr v6;
volatile const __u32 words[4] = {1, 2, 3, 4};
volatile enum mode mode = ON;
volatile struct cfg cfg = { .port = 99, .name = "abc", .low = 5, .high = 17, .list = {1, 2, 3} };
volatile struct cfg many[2];
volatile double real;
volatile float single;
void *pointer;
volatile char letter = 'x';
static volatile int hidden = 12;
volatile int dotted SEC(".data.mine") = 4;
extern int CONFIG_HZ __kconfig;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int); }
  table SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx) {
  int k = 0;
  return target_ifindex + folded + small + byte + wide + flag + name[0] + mac[0] + port + host_port + addr
    + v6.s6_addr[0] + words[0] + mode + cfg.port + many[1].port + (long)pointer + letter + hidden + dotted
    + CONFIG_HZ + !!bpf_map_lookup_elem(&table, &k);
}
"""


@pytest.fixture(scope="module")
def obj(compiled):
    return reader.read(compiled(SOURCE))


def ifindex(name: str) -> int:
    known = {"eth0": 2, "veth_yyy0": 4096}
    if name not in known:
        raise NotFoundError("interface", name, known=known)
    return known[name]


@pytest.mark.parametrize(
    ("text", "section", "data"),
    [
        ("target_ifindex=5", ".rodata", b"\5\0\0\0"),
        ("target_ifindex=0x10", ".rodata", b"\x10\0\0\0"),
        ("target_ifindex=0b101", ".rodata", b"\5\0\0\0"),
        ("target_ifindex=4294967295", ".rodata", b"\xff\xff\xff\xff"),
        ("target_ifindex=eth0", ".rodata", b"\2\0\0\0"),
        ("target_ifindex=veth_yyy0", ".rodata", b"\0\x10\0\0"),
        ("target_ifindex=10.0.0.1", ".rodata", b"\x0a\0\0\1"),
        ("wide=eth0", ".rodata", b"\2\0\0\0\0\0\0\0"),
        ("small=-32768", ".rodata", b"\0\x80"),
        ("flag=yes", ".rodata", b"\1"),
        ("flag=off", ".rodata", b"\0"),
        ("name=eth0", ".rodata", b"eth0" + bytes(12)),
        ("name=", ".rodata", bytes(16)),
        ("name=a=b", ".rodata", b"a=b" + bytes(13)),
        ("mac=aa:bb:cc:dd:ee:ff", ".rodata", bytes.fromhex("aabbccddeeff")),
        ("mac=aa-bb-cc-dd-ee-ff", ".rodata", bytes.fromhex("aabbccddeeff")),
        ("mac=1,2,3", ".rodata", bytes([1, 2, 3, 0, 0, 0])),
        ("mac=hex:0a0b0c0d0e0f", ".rodata", bytes.fromhex("0a0b0c0d0e0f")),
        ("port=80", ".rodata", b"\0\x50"),
        ("host_port=80", ".rodata", b"\x50\0"),
        ("addr=10.1.2.3", ".rodata", bytes([10, 1, 2, 3])),
        ("addr=1", ".rodata", b"\0\0\0\1"),
        ("v6=fe80::1", ".bss", bytes.fromhex("fe80" + "00" * 13 + "01")),
        ("words=fe80::1", ".rodata", bytes.fromhex("fe80" + "00" * 13 + "01")),
        ("words[2]=7", ".rodata", b"\7\0\0\0"),
        ("mode=OFF", ".data", b"\0\0\0\0"),
        ("mode=3", ".data", b"\3\0\0\0"),
        ("cfg.port=80", ".data", b"\x50\0"),
        ("cfg.v6=::1", ".data", bytes(15) + b"\1"),
        ("cfg.list=9,8", ".data", b"\x09\0\0\0\x08\0\0\0\0\0\0\0"),
        ("cfg.out=eth0", ".data", b"\2\0\0\0"),
        ("cfg.raw=1.2.3.4", ".data", b"\1\2\3\4"),
        ("many[1].mac[5]=255", ".bss", b"\xff"),
        ("real=1.5", ".bss", b"\0\0\0\0\0\0\xf8\x3f"),
        ("letter=y", ".data", b"y"),
        ("letter=7", ".data", b"\7"),
        ("hidden=-1", ".data", b"\xff\xff\xff\xff"),
        ("dotted=1", ".data.mine", b"\1\0\0\0"),
    ],
)
def test_a_value_becomes_the_bytes_that_the_program_reads(obj, text, section, data):
    found = parse(obj, text, ifindex=ifindex)
    assert (found.section, found.data) == (section, data)
    variable = obj.global_(found.name.split(".")[0].split("[")[0])
    assert variable.offset <= found.offset
    assert found.offset + len(data) <= variable.offset + variable.size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target_ifindex=-1", "0 to 4294967295"),
        ("target_ifindex=4294967296", "0 to 4294967295"),
        ("target_ifindex=1.5", "neither a number nor an interface"),
        ("target_ifindex=", "not a number"),
        ("target_ifindex=010", "leading zero"),
        ("target_ifindex=::1", "16 bytes, this has 4"),
        ("target_ifindex=/etc/passwd", "not a number"),
        ("byte=256", "0 to 255"),
        ("byte=eth0", "not a number"),
        ("small=40000", "-32768 to 32767"),
        ("flag=2", "true or false"),
        ("name=0123456789abcdef", "closing NUL"),
        ("mac=aa:bb:cc:dd:ee", "does not fit"),
        ("mac=1,2,3,4,5,6,7", "it has 6"),
        ("mac=256", "0 to 255"),
        ("words=10.0.0.1", "4 bytes, this has 16"),
        ("words[4]=1", r"the last is \[3\]"),
        ("words[=1", "no path of members"),
        ("words.x=1", "has no members"),
        ("target_ifindex[0]=1", "is no array"),
        ("cfg=5", "it has members"),
        ("cfg.low=1", "bitfield"),
        ("cfg={bad", "not valid JSON"),
        ('cfg={"port": null}', "does not fit"),
        ("pointer=1", "can't be set"),
        ("real=much", "not a number"),
        ("real=nan,", "not a number"),
        ("single=1e39", "does not fit"),
        ("letter=200", "-128 to 127"),
        ("CONFIG_HZ=100", "libbpf fills it"),
        ("target_ifindex", "NAME=VALUE"),
        ("=1", "NAME=VALUE"),
    ],
)
def test_what_does_not_fit_is_told(obj, text, words):
    with pytest.raises(ConfigError, match=words):
        parse(obj, text, ifindex=ifindex)


def test_unknown_names_suggest_near_ones(obj):
    with pytest.raises(NotFoundError) as caught:
        parse(obj, "target_ifindx=1")
    assert "target_ifindex" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        parse(obj, "cfg.prot=1")
    assert "port" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        parse(obj, "mode=NO")
    assert "ON" in caught.value.hint


def test_an_unknown_interface_suggests_near_ones(obj):
    with pytest.raises(ConfigError) as caught:
        parse(obj, "target_ifindex=veth_yyy1", ifindex=ifindex)
    assert "veth_yyy0" in caught.value.hint


def test_a_map_is_no_variable_and_says_so(obj):
    with pytest.raises(NotFoundError) as caught:
        parse(obj, "table=1")
    assert "is a map" in caught.value.hint


def test_json_sets_members_and_keeps_the_others(obj):
    found = parse(obj, 'cfg={"addr": "10.0.0.1", "list": [4, "eth0"], "low": 1}', ifindex=ifindex)
    before = obj.global_("cfg").initial
    assert found.data[4:8] == bytes([10, 0, 0, 1])
    assert found.data[:2] == before[:2]
    assert found.data[8] == 17 << 3 | 1
    assert found.data[obj.global_("cfg").size - 16 :][:12] == b"\4\0\0\0\2\0\0\0\0\0\0\0"


def test_a_constant_that_the_compiler_may_have_folded_is_noted(obj):
    assert "not volatile" in parse(obj, "folded=5").note
    assert parse(obj, "target_ifindex=5").note is None


def test_values_are_those_after_the_settings(obj):
    assert values(obj, "target_ifindex") == [7]
    assert values(obj, "cfg.port") == [99]
    assert values(obj, "words[*]") == [1, 2, 3, 4]
    assert values(obj, "many[*].out") == [0, 0]
    settings = parse_all(obj, ["target_ifindex=8", "target_ifindex=9", "words[1]=5", "many[1].out=6"])
    assert values(obj, "target_ifindex", settings) == [9]
    assert values(obj, "words[*]", settings) == [1, 5, 3, 4]
    assert values(obj, "many[*].out", settings) == [0, 6]
    assert values(obj, "no_such") == []
    assert values(obj, "cfg.nothing") == []


def test_without_btf_a_variable_can_not_be_set(compiled):
    source = 'volatile const int x = 1; SEC("xdp") int prog(void *ctx) { return x; }'
    bare = reader.read(compiled(source, "-g0"))
    assert [one.name for one in bare.globals] == ["x"]
    with pytest.raises(ConfigError, match="does not tell its type") as caught:
        encode(bare, "x", "1")
    assert "-g" in caught.value.hint


def test_two_static_variables_of_one_name_are_not_guessed_between(compiled):
    source = """
    static volatile int twin; static volatile const int other;
    SEC("xdp") int a(void *ctx) { static volatile int count; return count++ + twin; }
    SEC("xdp") int b(void *ctx) { static volatile int count; return count++; }
    """
    obj = reader.read(compiled(source))
    if sum(one.name == "count" for one in obj.globals) == 2:
        with pytest.raises(ConfigError, match="2 variables"):
            encode(obj, "count", "1")
    assert encode(obj, "twin", "3").data == b"\3\0\0\0"
