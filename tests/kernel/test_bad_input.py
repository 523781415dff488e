"""What users get wrong, through the real command line: one clear line, a hint, an exit code, and nothing changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from attachments import HEADER, attach, detach, nothing_left, programs_of, tc, xdp

pytestmark = pytest.mark.kernel

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture(scope="module")
def compiled(compile_c):
    """An object by name, compiled once."""
    made: dict[str, str] = {}

    def get(source: str, name: str) -> str:
        if name not in made:
            made[name] = str(compile_c(source, name))
        return made[name]

    return get


@pytest.fixture
def bench(world, compiled, tmp_path, monkeypatch):
    """Everything that the mistakes below are made with, in one namespace."""
    inside = world.namespace()
    world.veth("veth0", "veth1", netns_a=inside, netns_b=inside)
    world.ip("link add br0 type bridge", inside)
    good = Path(compiled(xdp("good"), "good"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where logs of the verifier go
    made = Bench(inside, world, tmp_path, good)
    made.write("notes.txt", b"not an object\n")
    made.write("empty.o", b"")
    made.write("source.c", b"int main(void) { return 0; }\n")
    made.write("cut.o", good.read_bytes()[: good.stat().st_size // 2])
    made.write("stub.o", good.read_bytes()[:40])
    host = bytearray(good.read_bytes())
    host[18:20] = (62).to_bytes(2, sys.byteorder)
    made.write("host.o", bytes(host))
    made.obj = compiled
    return made


class Bench:
    """A namespace with veth0, veth1 and br0, and a folder of files."""

    def __init__(self, netns, world, folder: Path, good: Path) -> None:
        self.netns, self.world, self.folder, self.good = netns, world, folder, good
        self.obj = None

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def foreign(self, *, mode: str = "xdpdrv", name: str = "theirs") -> None:
        other = self.obj(xdp(name), name)
        self.world.ip(f"link set dev veth0 {mode} obj {other} sec xdp", self.netns)


def in_netns(bench, *words):
    return ["attach", "--netns", bench.netns, *words]


TWO = 'SEC("xdp") int two(struct xdp_md *ctx) { return XDP_DROP; }\n'
GLOBAL = HEADER + (
    "const volatile __u8 limit = 1;\n"
    'SEC("xdp") int f(struct xdp_md *ctx) { return limit ? XDP_PASS : XDP_DROP; }\n'
)
REJECTED = HEADER + (
    'SEC("xdp") int oob(struct xdp_md *ctx)\n'
    "{\n"
    "    unsigned char *data = (void *)(long)ctx->data;\n"
    "    return data[0]; /* the telling line */\n"
    "}\n"
)

# name -> (words of the command line, exit code, what the line says, what the hint says)
ATTACH = {
    "no such file": (lambda b: in_netns(b, "veth0", "goood.o"), 2, "no such file: goood.o", None),
    "not an ELF": (lambda b: in_netns(b, "veth0", "notes.txt"), 4, "notes.txt is not an ELF file", None),
    "an empty file": (lambda b: in_netns(b, "veth0", "empty.o"), 4, "not an ELF file .empty", None),
    "C source": (lambda b: in_netns(b, "veth0", "source.c"), 4, "but C source", "xdpctl build source.c"),
    "a directory": (lambda b: in_netns(b, "veth0", "."), 4, "is a directory", None),
    "another machine": (lambda b: in_netns(b, "veth0", "host.o"), 4, "machine x86-64, not for BPF", "target bpf"),
    "cut short": (lambda b: in_netns(b, "veth0", "cut.o"), 4, "cut.o is", None),
    "cut in the header": (lambda b: in_netns(b, "veth0", "stub.o"), 4, "truncated", None),
    "no program": (
        lambda b: in_netns(b, "veth0", b.obj(HEADER, "none")), 4, "none.bpf.o has no program", "SEC"),
    "several programs": (
        lambda b: in_netns(b, "veth0", b.obj(xdp("one") + TWO, "several")), 2,
        r"2 programs that could be meant: one \(SEC xdp\), two \(SEC xdp\)", "--program one"),
    "no such program": (
        lambda b: in_netns(b, "--program", "goof", "veth0", str(b.good)), 2,
        "no such program: goof .in good.bpf.o", "did you mean good"),
    "no such interface": (
        lambda b: in_netns(b, "vet0", str(b.good)), 2, "no such interface: vet0", "did you mean veth0"),
    "a glob without a match": (lambda b: in_netns(b, "eth*", str(b.good)), 2, "eth", "veth0, veth1"),
    "no such namespace": (
        lambda b: ["attach", "--netns", b.netns[:-1], "veth0", str(b.good)], 2,
        "no such network namespace", "did you mean"),
    "interface and object swapped": (
        lambda b: in_netns(b, str(b.good), "veth0"), 2, "the object comes last, not veth0",
        "attach veth0 .*good.bpf.o"),
    "no object": (lambda b: in_netns(b, "veth0"), 2, "no object file given", "attach veth0 prog.o"),
    "no interface": (lambda b: in_netns(b, str(b.good)), 2, "no interface given", "attach IFACE"),
    "an unknown option": (lambda b: in_netns(b, "--mood", "x", "veth0", "x.o"), 2, "No such option: --mood", "--help"),
    "an unknown mode": (
        lambda b: in_netns(b, "--mode", "skb", "veth0", str(b.good)), 2, "--mode skb: no such choice",
        "native, generic"),
    "an unknown type": (
        lambda b: in_netns(b, "--type", "xdpp", "veth0", str(b.good)), 2, "no such program type: xdpp", "xdp"),
    "an unknown command": (lambda _: ["atach", "veth0"], 2, "No such command 'atach'", "--help"),
    "no direction": (
        lambda b: in_netns(b, "veth0", b.obj(tc("shape"), "tc")), 2, "ingress or egress", "--hook ingress"),
    "a mode for TC": (
        lambda b: in_netns(b, "--mode", "generic", "--hook", "ingress", "veth0", b.obj(tc("shape"), "tc")), 2,
        "--hook ingress is for TC programs, --mode generic for XDP", None),
    "no native XDP": (
        lambda b: in_netns(b, "br0", str(b.good)), 6, "br0.*native", "--mode generic"),
    "no such global": (
        lambda b: in_netns(b, "--set", "limt=3", "veth0", b.obj(GLOBAL, "global")), 2, "limt", "limit"),
    "a value that doesn't fit": (
        lambda b: in_netns(b, "--set", "limit=256", "veth0", b.obj(GLOBAL, "global")), 2, "256.*limit", None),
    "a setting without a value": (
        lambda b: in_netns(b, "--set", "limit", "veth0", b.obj(GLOBAL, "global")), 2, "NAME=VALUE", None),
    "no such map": (
        lambda b: in_netns(b, "--map", "flow=max_entries=3", "veth0", str(b.good)), 2, "no such map: flow", None),
    "a map without a size": (
        lambda b: in_netns(b, "--map", "flow=max_entries=many", "veth0", str(b.good)), 2, "max_entries", None),
    "the verifier says no": (
        lambda b: in_netns(b, "veth0", b.obj(REJECTED, "rejected")), 5,
        "program oob .*outside of the (packet|allowed memory range).*rejected.bpf.c:9:", "log"),
}  # fmt: skip


def check(done, code: int, line: str, hint: str | None) -> None:
    """One line that says it, a hint where one is due, the code; nothing on stdout."""
    errors = [text for text in done.stderr.splitlines() if text.startswith("xdpctl: error: ")]
    assert len(errors) == 1, done.stderr
    assert re.search(line, errors[0]), done.stderr
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    if hint is not None:
        hints = [text for text in done.stderr.splitlines() if text.startswith("hint: ")]
        assert len(hints) == 1, done.stderr
        assert re.search(hint, hints[0]), done.stderr


@pytest.mark.parametrize("mistake", list(ATTACH))
def test_one_line_a_hint_and_a_code(bench, xdpctl, mistake):
    words, code, line, hint = ATTACH[mistake]
    check(xdpctl(*words(bench)), code, line, hint)
    assert nothing_left()


def test_the_verifier_s_line_comes_with_its_source_and_the_whole_log_in_a_file(bench, xdpctl):
    done = xdpctl(*in_netns(bench, "veth0", bench.obj(REJECTED, "rejected"), "--json"))
    error = done.json()["error"]
    assert error["type"] == "VerifierError"
    assert re.search("outside of the (packet|allowed memory range)", error["line"])
    assert "the telling line" in error["source"]
    assert "invalid access to packet" in Path(error["log_file"]).read_text()


def test_json_errors_carry_what_the_kernel_said(bench, xdpctl):
    done = xdpctl(*in_netns(bench, "br0", str(bench.good), "--json"))
    error = done.json()["error"]
    assert (error["type"], error["exit_code"], error["interface"]) == ("AttachError", 6, "br0")
    assert error["errno"] == "EOPNOTSUPP"
    assert error["extack"] == "Underlying driver does not support XDP in native mode"


@pytest.mark.parametrize("words", [["attach", "veth0", "OBJ"], ["detach", "veth0"]], ids=["attach", "detach"])
def test_a_missing_capability_is_named(bench, words):
    words = [str(bench.good) if one == "OBJ" else one for one in words]
    done = bench.world.run(
        "nsenter", f"--net=/run/netns/{bench.netns}", *WITHOUT_CAPABILITIES,
        sys.executable, "-m", "xdpctl.cli", *words, check=False,
    )  # fmt: skip
    check(done, 10, "not permitted, needs CAP_NET_ADMIN and CAP_BPF", "as root")


def test_entering_a_namespace_without_the_capability_is_told(bench):
    done = bench.world.run(
        *WITHOUT_CAPABILITIES,
        sys.executable,
        "-m",
        "xdpctl.cli",
        "status",
        "--netns",
        bench.netns,
        check=False,
    )
    check(done, 10, f"namespace {bench.netns}: not permitted, needs CAP_SYS_ADMIN", "as root")


def test_no_bpffs_is_told_with_the_command_that_mounts_it(bench, xdpctl, tmp_path):
    words = in_netns(bench, "veth0", str(bench.good))
    done = xdpctl(*words, env={"XDPCTL_BPFFS": str(tmp_path)})
    check(done, 9, f"a mounted bpffs at {tmp_path}", f"mount -t bpf bpf {tmp_path}; or --via netlink")
    xdpctl(*words, "--via", "netlink", env={"XDPCTL_BPFFS": str(tmp_path)}, check=True)
    detach("veth0", netns=bench.netns)
    assert nothing_left()


def test_another_mode_is_in_the_way(bench, xdpctl):
    attach(bench.good, "veth0", netns=bench.netns, mode="generic")
    done = xdpctl(*in_netns(bench, "veth0", str(bench.good)))
    check(done, 6, "veth0.*generic", "xdpctl detach --netns .* veth0 --mode generic")
    detach("veth0", netns=bench.netns)


def test_a_link_is_in_the_way(bench, xdpctl):
    (made,) = attach(bench.good, "veth0", netns=bench.netns)
    done = xdpctl(*in_netns(bench, "veth0", str(bench.good)))
    check(
        done, 6, rf"good \(program {made.program.id}, link {made.link_id}, attached by xdpctl\)", "--replace"
    )
    detach("veth0", netns=bench.netns)


def test_a_foreign_program_is_in_the_way(bench, xdpctl):
    bench.foreign()
    done = xdpctl(*in_netns(bench, "veth0", str(bench.good)))
    check(done, 6, r"theirs \(program \d+, not attached by xdpctl\)", "ip link set dev veth0 xdpdrv off")
    done = xdpctl("detach", "--netns", bench.netns, "veth0")
    check(done, 6, "theirs .* was put there by somebody else", "--foreign")
    assert programs_of(bench.netns, "veth0") == ["theirs"]


def test_a_dispatcher_stays_even_with_replace(bench, xdpctl):
    bench.foreign(name="xdp_dispatcher")
    done = xdpctl(*in_netns(bench, "--replace", "veth0", str(bench.good)))
    check(done, 6, "xdp_dispatcher .* dispatcher of libxdp or bpfman", "xdp-loader unload veth0 --all")


def test_detaching_the_wrong_mode_names_the_active_one(bench, xdpctl):
    attach(bench.good, "veth0", netns=bench.netns)
    done = xdpctl("detach", "--netns", bench.netns, "--mode", "generic", "veth0")
    check(done, 6, "nothing in generic mode; active is native: good", "--mode native")
    xdpctl("detach", "--netns", bench.netns, "--mode", "native", "veth0", check=True)
    done = xdpctl("detach", "--netns", bench.netns, "veth0")
    check(done, 6, "has no program", "xdpctl status veth0")


def test_broken_c_comes_back_with_file_line_and_caret(xdpctl, tmp_path):
    (tmp_path / "broken.bpf.c").write_text("int f(void) { return undeclared; }\n")
    done = xdpctl("build", "broken.bpf.c", "-o", "out")
    assert done.returncode == 3
    assert "broken.bpf.c:1:22: error" in done.stderr
    assert "^" in done.stderr


def test_output_that_nobody_reads_is_no_failure(bench):
    attach(bench.good, "veth0", netns=bench.netns)
    command = f"{sys.executable} -m xdpctl.cli status --netns {bench.netns} --json"
    for pipe in ("| true", "| head -1", ">&-"):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{command} {pipe}"],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), pipe
    done = subprocess.run(
        ["bash", "-c", f"{command} >/dev/full"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 74
    assert done.stderr == "xdpctl: error: can't write the output: No space left on device\n"
    detach("veth0", netns=bench.netns)


def test_names_with_control_characters_do_not_reach_the_terminal(bench, xdpctl):
    done = xdpctl(*in_netns(bench, "veth0\x1b[31m", str(bench.good)))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    done = xdpctl(*in_netns(bench, os.fsdecode(b"\xff\xfe"), str(bench.good)))
    assert done.returncode == 2
