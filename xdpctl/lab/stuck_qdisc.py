"""Lab ``stuck-qdisc``: a packet that comes while another CPU runs the qdisc is left to that CPU, and waits.

Since 4.16 pfifo_fast is lockless (TCQ_F_NOLOCK): who doesn't get its seqlock leaves. Before STATE_MISSED (5.13,
5.10.42) a packet that came behind the owner's last look stayed until somebody sent the next one. See `ringrace.qdisc`.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from xdpctl.lab.burner import AT_EMPTY, IN_XMIT, Burner
from xdpctl.lab.scenario import BY_HAND, CURE, HAPPENS, TOLD, Lab, Measured, Outcome
from xdpctl.netlink import interfaces, netns

if TYPE_CHECKING:
    from xdpctl.lab.burner import Victim
    from xdpctl.lab.stage import Stage

ROUNDS = 40
QUIET = 100
BURN_NS = 1_000_000
MOST_BURN_NS = 6_000_000


def set_up(stage: Stage) -> None:
    """A veth with pfifo_fast."""
    host, guest = stage.namespace("host"), stage.namespace("guest")
    stage.pair("va", "vb", (host, guest), here_more=_index())
    stage.shell(f"tc -n {host} qdisc replace dev va root pfifo_fast")


def _index() -> str:
    import secrets

    return f"index {(1 << 20) + secrets.randbelow(1 << 29)}"


def play(stage: Stage) -> Outcome:
    """Hold one CPU up while it sends, and send from the other, with pfifo_fast, with pfifo and without a qdisc."""
    from xdpctl.trace.qdisc import QdiscTrace
    from xdpctl.trace.tracer import enumerators

    host = stage.netns("host")
    fixed = "__QDISC_STATE_MISSED" in enumerators("qdisc_state_t").values()
    with netns.enter(host):
        target = (netns.current().inode, interfaces.ifindex("va"))
    with Burner(host, "va") as burner:
        quiet = sorted(one.residence_ns or 0 for one in burner.quiet(QUIET))
        burn = min(MOST_BURN_NS, max(BURN_NS, 20 * quiet[len(quiet) * 9 // 10]))
        with QdiscTrace(frozenset({target})) as tracer:
            with netns.enter(host):
                live = tracer.look(target[1])
            before = burner.rounds(ROUNDS, burn)
            told = tracer.read()
        stage.chapter(HAPPENS)
        stage.say(
            f"one CPU is held up {burn / 1e6:.1f} ms in sch_direct_xmit(), then at its last look; the other sends"
        )
        for where, words in ((IN_XMIT, "while it hands a packet over"), (AT_EMPTY, "behind its last look")):
            one = summary([held for held in before if held.where == where])
            stage.say(
                f"  {words}: {one['packets']} packets, {one['by_other']} sent by the other CPU, {one['stuck']} stuck"
            )
        stage.chapter(BY_HAND)
        stage.say(
            "net:net_dev_queue and net:net_dev_start_xmit, matched by skbaddr; tc -s qdisc tells of no waiting:"
        )
        stage.shell(f"tc -n {host} -s qdisc show dev va")
        stage.chapter(TOLD)
        stage.say(f"the live qdisc: {live.kind if live else '?'}, lockless: {live.lockless if live else '?'}")
        for row in told.residences:
            for who, histogram in (("its own CPU", row.own), ("another CPU", row.other)):
                stage.say(
                    f"  sent by {who}: {histogram.packets} packets, p50 {histogram.percentile(0.5) / 1e3:,.1f} us"
                )
        stage.chapter(CURE)
        stage.shell(f"tc -n {host} qdisc replace dev va root pfifo")
        locked = burner.rounds(ROUNDS, burn)
        stage.shell(f"tc -n {host} qdisc replace dev va root noqueue")
        after = burner.rounds(ROUNDS, burn)
    rows = {"pfifo_fast": summary(before), "pfifo": summary(locked), "noqueue": summary(after)}
    check(stage, rows, before, burn, fixed=fixed)
    stage.say("pfifo's packets wait for the owner too, but under a lock: none can come behind its last look")
    return Outcome(
        (
            Measured(
                "stuck packets, pfifo_fast to pfifo", rows["pfifo_fast"]["stuck"], rows["pfifo"]["stuck"]
            ),
            Measured(
                "residence p50, pfifo_fast to noqueue",
                rows["pfifo_fast"]["p50_us"],
                rows["noqueue"]["p50_us"],
                "us",
            ),
            Measured("sent by the other CPU", rows["pfifo_fast"]["by_other"], rows["noqueue"]["by_other"]),
        ),
        not fixed and rows["pfifo_fast"]["stuck"] > 0,
        "this kernel has STATE_MISSED: staged, a packet waits for the owner and is never forgotten"
        if fixed
        else "this kernel lacks STATE_MISSED: the real bug",
        {
            "burn_ns": burn,
            "lockless": live.lockless if live else None,
            "fixed": fixed,
            "quiet_p50_us": median(quiet) / 1e3,
            "qdiscs": rows,
            "at_last_look": summary([one for one in before if one.where == AT_EMPTY]),
        },
    )


def summary(victims: list[Victim]) -> dict[str, Any]:
    """Counts and the median residence."""
    times = [one.residence_ns for one in victims if one.residence_ns is not None]
    return {
        "packets": len(victims),
        "by_other": sum(one.by_other for one in victims),
        "stuck": sum(one.residence_ns is None for one in victims),
        "p50_us": round(median(times) / 1e3, 1) if times else None,
    }


def check(stage: Stage, rows: dict[str, Any], before: list[Victim], burn: int, *, fixed: bool) -> None:
    """As the recipe has it: overtaken packets wait for the burn and are sent by the other CPU."""
    held = [one for one in before if one.where == IN_XMIT]
    late = [one for one in held if one.residence_ns is None or one.residence_ns > burn / 2]
    stage.expect(
        len(held) >= ROUNDS * 0.75, f"only {len(held)} of {ROUNDS} packets came while the CPU was held up"
    )
    stage.expect(len(late) >= 0.75 * len(held), f"only {len(late)} of {len(held)} packets waited for it")
    stage.expect(rows["noqueue"]["p50_us"] * 1e3 < burn / 10, "packets waited without a qdisc, too")
    if fixed:
        stage.expect(rows["pfifo_fast"]["stuck"] == 0, f"{rows['pfifo_fast']['stuck']} packets are stuck")


LAB = Lab(
    "stuck-qdisc",
    "a packet comes while another CPU runs the lockless qdisc, is left to it, and waits",
    3,
    ("host", "guest"),
    set_up,
    play,
    look=("tc -n {host} -s qdisc show dev va",),
)
