"""A trie starts again where the cursor's key is gone: between two batches, or amidst one (generic_map_lookup_batch)."""

from xdpctl.bpf import batch


def of(*keys: int) -> batch.Batch:
    return batch.Batch(len(keys), bytes(keys), bytes(keys), 1, 1)


def test_a_key_comes_once_wherever_the_kernel_started_again():
    told = batch._once(iter([of(1, 2, 3), of(1, 2, 4, 5, 4), of(5, 5, 6, 6)]))
    assert [[key for key, _ in one.pairs()] for one in told] == [
        [b"\1", b"\2", b"\3"],
        [b"\4", b"\5"],
        [b"\6"],
    ]


def test_batches_without_repetition_are_handed_on_as_they_are():
    first, second = of(1, 2), of(3)
    assert list(batch._once(iter([first, second]))) == [first, second]
