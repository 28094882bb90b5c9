import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdriver.audit_spool import AuditSpool, path_text
from fsdriver.errors import SpoolFailed
from keyserver.messages import FilePath, Record

NOW = 1_800_000_000.25


def opened(directory, **options):
    return AuditSpool(directory, "m1", lambda: NOW, **options)


def crash(spool):
    """What the kernel does when the process dies: descriptors go, nothing else happens."""
    for fd in (spool._fd, spool._acknowledged_fd, spool._lock_fd):
        os.close(fd)


def shipped(spool, **limits):
    """Everything the spool still holds, with numbers and chain checked as the server checks them."""
    records = []
    while batch := spool.batch(**limits):
        chain = batch.chain
        for seq, text in enumerate(batch.records, batch.first):
            record = msgspec.json.decode(text, type=Record)
            assert record.seq == seq
            assert msgspec.json.encode(record) == text
            chain = hashlib.sha256(chain + text).digest()
            records.append(record)
        spool.acknowledge(batch.first + len(batch) - 1)
        after = spool.batch(**limits)
        assert after is None or (after.first, after.chain) == (batch.first + len(batch), chain)
    return records


def details(records):
    return [record.detail for record in records if record.event == "open"]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool"


def test_what_was_appended_is_shipped_in_order(place):
    with contextlib.closing(opened(place)) as spool:
        for number in range(5):
            assert spool.append("open", user="li", file=FilePath("/a"), detail=str(number)) == number + 1
        records = shipped(spool, records=2)
        assert details(records) == list("01234")
        assert records[0].time == "2027-01-15T08:00:00.250000Z"
        assert records[0].machine == "m1"
        assert (spool.last, spool.acknowledged) == (5, 5)


def test_numbers_and_chain_go_on_after_a_clean_close(place):
    for number in range(3):
        spool = opened(place)
        assert spool.append("open", detail=str(number)) == number + 1
        spool.close()
    with contextlib.closing(opened(place)) as spool:
        assert details(shipped(spool)) == list("012")
        assert spool.last == 3


def test_segments_rotate_and_go_once_acknowledged(place):
    with contextlib.closing(opened(place, segment_size=600)) as spool:
        for number in range(20):
            spool.append("open", detail=str(number))
        assert len(list(place.glob("*.seg"))) > 3
        assert details(shipped(spool)) == [str(n) for n in range(20)]
        assert len(list(place.glob("*.seg"))) == 1


def test_a_partial_acknowledgement_moves_as_far_as_it_says(place):
    with contextlib.closing(opened(place)) as spool:
        for number in range(5):
            spool.append("open", detail=str(number))
        assert spool.batch() is not None
        spool.acknowledge(2)
        batch = spool.batch()
        assert batch is not None
        assert batch.first == 3
        spool.acknowledge(1)
        spool.acknowledge(99)
        assert spool.batch() is None


def test_one_process_at_a_time(place):
    with contextlib.closing(opened(place)), pytest.raises(SpoolFailed, match="another process"):
        opened(place)


def test_a_kill_is_recorded_once(place):
    spool = opened(place)
    spool.append("open")
    crash(spool)
    for events in (["open", "restart"], []):
        with contextlib.closing(opened(place)) as spool:
            assert [record.event for record in shipped(spool)] == events


def test_a_record_torn_at_any_byte_is_cut_off_and_told(place, tmp_path):
    spool = opened(place)
    spool.append("open", detail="whole")
    size = spool._size
    spool.append("open", detail="torn")
    end = spool._size
    crash(spool)
    for cut in range(size + 1, end):
        copy = tmp_path / "copy"
        shutil.copytree(place, copy)
        os.truncate(copy / f"{1:020d}.seg", cut)
        with contextlib.closing(opened(copy)) as spool:
            records = shipped(spool)
            assert [(r.seq, r.event) for r in records] == [(1, "open"), (2, "restart")]
            assert f"{cut - size} bytes" in records[1].detail
            assert len(list((copy / "damaged").iterdir())) == 1
        shutil.rmtree(copy)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_moved_aside_recorded_and_costs_one_record(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("spool") / "spool"
    spool = opened(place, segment_size=data.draw(st.sampled_from([500, 1 << 20])))
    for number in range(12):
        spool.append("open", detail=f"<{number}>")
    acknowledged = data.draw(st.integers(0, 11))
    if acknowledged:
        spool.batch(records=acknowledged)
        spool.acknowledge(acknowledged)
    acknowledged = spool.acknowledged
    crash(spool)
    path = data.draw(st.sampled_from(sorted(place.glob("*.seg"))))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)

    with contextlib.closing(opened(place)) as spool:
        records = shipped(spool)
    assert records[0].seq == acknowledged + 1
    told = "".join(record.detail for record in records if record.event in ("damaged", "restart"))
    there = [n for n in range(acknowledged, 12) if any(f"<{n}>" in d for d in details(records))]
    assert len(there) >= 12 - acknowledged - 1
    assert len(details(records)) == len(there)
    if len(there) < 12 - acknowledged:
        assert "damaged" in told
        assert bytes(content) in [p.read_bytes() for p in (place / "damaged").iterdir()] or "cut off" in told


def test_a_missing_segment_is_told(place):
    spool = opened(place, segment_size=400)
    for number in range(9):
        spool.append("open", detail=str(number))
    crash(spool)
    sorted(place.glob("*.seg"))[1].unlink()
    with contextlib.closing(opened(place)) as spool:
        records = shipped(spool)
    assert [r.seq for r in records] == list(range(1, len(records) + 1))
    assert any(r.event == "damaged" and "missing" in r.detail for r in records)


def test_what_the_server_has_is_not_numbered_again_when_a_power_cut_took_it_here(place):
    spool = opened(place)
    for number in range(4):
        spool.append("open", detail=str(number))
    shipped(spool)
    crash(spool)
    os.truncate(place / f"{1:020d}.seg", 100)
    with contextlib.closing(opened(place)) as spool:
        assert spool.append("open", detail="new") == 6  # 5 is the restart
        assert [r.seq for r in shipped(spool)] == [5, 6]


def test_a_torn_acknowledgement_file_means_sending_again(place):
    spool = opened(place)
    spool.append("open", detail="0")
    shipped(spool)
    spool.close()
    (place / "acknowledged").write_bytes(b"torn")
    with contextlib.closing(opened(place)) as spool:
        assert details(shipped(spool)) == ["0"]


class Faults:
    """Lets the `at`-th of the watched system calls fail, then all following ones if `lasting`."""

    CALLS = ("write", "ftruncate", "fdatasync", "fsync", "open", "pwrite", "unlink", "rename", "truncate")

    def __init__(self, patch, at, lasting=False, partial=False):
        self.count, self.at, self.lasting, self.partial, self.on = 0, at, lasting, partial, True
        for name in self.CALLS:
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, call):
        def faulting(*args, **kwargs):
            if not self.on:
                return call(*args, **kwargs)
            self.count += 1
            if self.count == self.at or (self.lasting and self.count > self.at):
                if name == "write" and self.partial:
                    return call(args[0], args[1][: len(args[1]) // 2])
                raise OSError(errno.EIO, f"injected into {name}")
            return call(*args, **kwargs)

        return faulting


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("lasting", [False, True])
def test_each_failing_system_call_leaves_every_returned_append_exactly_once(place, tmp_path, lasting, partial):
    at, done = 0, False
    while not done:
        at += 1
        shutil.rmtree(place, ignore_errors=True)
        returned = []
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, lasting, partial)
            spool = None
            with contextlib.suppress(SpoolFailed):
                spool = opened(place, segment_size=600)
                for number in range(12):
                    with contextlib.suppress(SpoolFailed):
                        spool.append("open", detail=str(number))
                        returned.append(str(number))
                    if number == 6:
                        with contextlib.suppress(SpoolFailed):
                            spool.batch(records=3)
                            spool.acknowledge(3)
            done = faults.count < at
            faults.on = False
            taken = spool.acknowledged if spool else 0
            if spool:
                crash(spool)
        with contextlib.closing(opened(place)) as spool:
            again = shipped(spool)
            assert [r.seq for r in again] == list(range(again[0].seq, again[0].seq + len(again))) if again else True
            # An acknowledgement that could not be written down means sending again, not losing.
            assert details(again) in (returned, returned[taken:])
            assert not any(record.event == "damaged" for record in again)
    assert at > 20


def test_every_failing_step_of_moving_damage_aside_can_be_repeated(place, tmp_path):
    spool = opened(place, segment_size=600)
    for number in range(12):
        spool.append("open", detail=f"<{number}>")
    crash(spool)
    path = sorted(place.glob("*.seg"))[1]
    content = bytearray(path.read_bytes())
    content[70] ^= 1
    path.write_bytes(content)
    at, done = 0, False
    while not done:
        at += 1
        copy = tmp_path / "copy"
        shutil.copytree(place, copy)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, lasting=True)
            with contextlib.suppress(SpoolFailed):
                crash(opened(copy))
            done = faults.count < at
        with contextlib.closing(opened(copy)) as spool:
            records = shipped(spool)
        assert [r.seq for r in records] == list(range(1, len(records) + 1))
        assert sum(r.event == "damaged" for r in records) == 1
        assert len(details(records)) == 11
        shutil.rmtree(copy)
    assert at > 10


def test_a_full_disk_refuses_the_append_and_spoils_nothing(place):
    """RLIMIT_FSIZE makes the kernel write a part and then refuse, as a full disk does."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from fsdriver.audit_spool import AuditSpool
from fsdriver.errors import SpoolFailed
spool = AuditSpool(Path(sys.argv[1]), "m1", lambda: {NOW})
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
done = refused = 0
for number in range(60):
    try:
        spool.append("open", detail=str(done))
        done += 1
    except SpoolFailed:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
spool.append("open", detail=str(done))
print(done + 1, refused)
spool.close()
"""
    output = subprocess.run([sys.executable, "-c", code, str(place)], check=True, capture_output=True, text=True).stdout
    done, refused = map(int, output.split())
    assert refused > 0
    with contextlib.closing(opened(place)) as spool:
        assert details(shipped(spool)) == [str(n) for n in range(done)]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs in a mount namespace of its own")
def test_a_full_disk_is_freed_by_acknowledgements(place):
    code = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from fsdriver.audit_spool import AuditSpool
from fsdriver.errors import SpoolFailed
spool = AuditSpool(Path(sys.argv[1]) / "spool", "m1", lambda: {NOW}, segment_size=20_000)
def fill():
    done = 0
    try:
        while True:
            spool.append("open", detail="x" * 500)
            done += 1
    except SpoolFailed:
        return done
first = fill()
while batch := spool.batch(records=20):
    spool.acknowledge(batch.first + len(batch) - 1)
second = fill()
assert spool.last == first + second
print(first, second)
"""
    place.mkdir()
    command = 'mount -t tmpfs -o size=200k none "$1" && exec "$2" -I -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", str(place), sys.executable, code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = map(int, done.stdout.split())
    assert first > 100
    assert second > 100


CHILD = f"""
import os, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from fsdriver.audit_spool import AuditSpool
spool = AuditSpool(Path(sys.argv[1]), "m1", lambda: {NOW}, segment_size=900)
os.write(1, b"ready\\n")
for number in range(int(sys.argv[2])):
    spool.append("open", detail=f"{{sys.argv[3]}}-{{number}}")
    os.write(1, b"%d\\n" % number)
    while number % 5 == 4 and (batch := spool.batch(records=4)):
        with open(sys.argv[1] + ".server", "ab") as server:
            server.write(b"".join(b"\\n" + line + b";" for line in batch.lines.splitlines()))
        spool.acknowledge(batch.first + len(batch) - 1)
"""


def received(place):
    """The records that the server has got; a line that a kill left half written has no semicolon."""
    server = Path(f"{place}.server")
    lines = server.read_text().splitlines() if server.exists() else []
    return [line.removesuffix(";") for line in lines if line.endswith(";")]


def check_after_kill(place, expected):
    """What the server got, its repeats dropped by number, and what is still here: each returned append once."""
    by_seq: dict[int, Record] = {}
    for text in received(place):
        record = msgspec.json.decode(text, type=Record)
        assert by_seq.setdefault(record.seq, record) == record
    with contextlib.closing(opened(place)) as spool:
        for record in shipped(spool):
            assert by_seq.setdefault(record.seq, record) == record
    assert sorted(by_seq) == list(range(1, len(by_seq) + 1))
    kept = details(by_seq[seq] for seq in sorted(by_seq))
    assert len(set(kept)) == len(kept)
    assert set(expected) <= set(kept)
    assert len(kept) <= len(expected) + 1  # the append in flight may be there, nobody was told
    assert not any(record.event == "damaged" for record in by_seq.values())


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
@pytest.mark.parametrize(
    "calls", ["write", "openat", "fsync,fdatasync", "pwrite64", "unlink", "close", "dup,fallocate"]
)
def test_kill_before_each_system_call(tmp_path, calls):
    ran = True
    when = 0
    while ran and when < 40:
        when += 1
        place = tmp_path / f"spool{when}"
        # Only calls on the spool's own files count, so that the interpreter's start is not killed again and again.
        paths = [str(place / name) for name in ("", *(f"{n:020d}.seg" for n in range(30)), "acknowledged", "running")]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", *(f"--trace-path={path}" for path in paths)]
        command += ["-e", f"inject={calls}:signal=KILL:when={when}"]
        command += [sys.executable, "-I", "-c", CHILD, str(place), "12", "a"]
        done = subprocess.run(command, capture_output=True, timeout=120)
        ran = done.returncode != 0
        numbers = done.stdout.decode().split()[1:]
        if place.exists():
            check_after_kill(place, [f"a-{n}" for n in numbers])
        shutil.rmtree(place, ignore_errors=True)
    assert not ran or when == 40
    assert when > 1, done.stderr


def test_kill_at_random_moments(tmp_path):
    place = tmp_path / "spool"
    expected = []
    chance = random.Random(7)
    for turn in range(6):
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", CHILD, str(place), "100000", str(turn)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        for _ in range(chance.randrange(1, 300)):
            line = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        numbers = [line, *child.stdout.read().splitlines()]
        child.stdout.close()
        child.wait()
        if numbers[-1].strip() not in (b"", b"ready"):
            expected += [f"{turn}-{n}" for n in range(int(numbers[-1]) + 1)]
    assert expected
    by_detail = {}
    with contextlib.closing(opened(place)) as spool:
        rest = [msgspec.json.encode(record).decode() for record in shipped(spool)]
    by_seq: dict[int, Record] = {}
    for text in received(place) + rest:
        record = msgspec.json.decode(text, type=Record)
        assert by_seq.setdefault(record.seq, record) == record
        by_detail[record.detail] = record.seq
    assert sorted(by_seq) == list(range(1, len(by_seq) + 1))
    assert set(expected) <= set(by_detail)


def test_threads_get_their_own_numbers(place):
    with contextlib.closing(opened(place, segment_size=20_000)) as spool:
        numbers: list[list[int]] = [[] for _ in range(4)]

        def work(mine):
            for _ in range(300):
                mine.append(spool.append("open"))

        threads = [threading.Thread(target=work, args=(mine,)) for mine in numbers]
        for thread in threads:
            thread.start()
        seen = []
        while any(thread.is_alive() for thread in threads):
            seen += shipped(spool)
        for thread in threads:
            thread.join()
        seen += shipped(spool)
        assert sorted(sum(numbers, [])) == list(range(1, 1201))
        assert [record.seq for record in seen] == list(range(1, 1201))


def test_sync_is_shared_and_its_failure_is_final(place, monkeypatch):
    spool = opened(place)
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    first = spool.append("open")
    spool.append("open")
    spool.sync(first)
    spool.sync()
    assert len(calls) == 1

    def fail(_):
        raise OSError(errno.EIO, "injected")

    spool.append("open")
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(SpoolFailed):
        spool.sync()
    monkeypatch.undo()
    with pytest.raises(SpoolFailed):
        spool.append("open")
    crash(spool)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.text(max_size=200)),
            st.tuples(st.just("ship"), st.integers(1, 5)),
            st.tuples(st.just("close"), st.just(0)),
            st.tuples(st.just("crash"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_the_spool_is_a_list(tmp_path_factory, steps):
    place = tmp_path_factory.mktemp("spool") / "spool"
    spool = opened(place, segment_size=700)
    model: list[str] = []
    server: list[str] = []
    for step, value in steps:
        if step == "append":
            with contextlib.suppress(UnicodeEncodeError):
                spool.append("open", detail=value)
                model.append(value)
        elif step == "ship":
            if batch := spool.batch(records=value):
                assert batch.first == len(server) + 1
                server += batch.records
                spool.acknowledge(len(server))
        else:
            crash(spool) if step == "crash" else spool.close()
            spool = opened(place, segment_size=700)
    while batch := spool.batch():
        server += batch.records
        spool.acknowledge(len(server))
    spool.close()
    assert details(msgspec.json.decode(text, type=Record) for text in server) == model


def test_names_that_are_not_utf8_can_be_recorded(place):
    with contextlib.closing(opened(place)) as spool:
        spool.append("open", file=FilePath(path_text(b"/sales/\xff\xe4.doc")))
        (record,) = shipped(spool)
        assert record.file is not None
        assert record.file.path == "/sales/\\xff\\xe4.doc"


def test_a_record_larger_than_the_log_takes_is_refused(place):
    with contextlib.closing(opened(place)) as spool:
        with pytest.raises(SpoolFailed, match="larger"):
            spool.append("open", detail="x" * 70_000)
        assert spool.append("open") == 1
