import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdriver.errors import LeaseExpired, LeaseMissing
from fsdriver.leases import Leases
from keyserver import messages as m
from keyserver.sealing import SealingError, SealingKey
from tests.loopback import COMPANY, MACHINE, lend

SEALING = SealingKey.generate()
LABEL = bytes.fromhex("aa" * 16)
OTHER = bytes.fromhex("bb" * 16)
T0 = 1_800_000_000.0


def answer(*grants, now=T0):
    return m.SyncResponse(now, None, {}, grants, 0)


def leased(label=LABEL, *, now=T0, term=900.0, **options):
    return lend(SEALING.public, label.hex(), expires=now + term, **options)


@pytest.fixture
def leases():
    return Leases(COMPANY, MACHINE, SEALING)


def test_a_lent_key_is_there_in_all_its_versions(leases):
    grant, keys = leased(versions=(1, 3, 2))
    change = leases.install(answer(grant), T0)
    assert change.gained == {LABEL}
    assert change.ended == frozenset()
    for version in (1, 2, 3):
        assert leases.key_for(LABEL, version, T0).secret == keys[version]
    newest = leases.key_for(LABEL, None, T0)
    assert (newest.version, newest.key_id) == (3, bytes.fromhex("d0" * 16))
    with pytest.raises(LeaseMissing):
        leases.key_for(LABEL, 4, T0)
    with pytest.raises(LeaseMissing):
        leases.key_for(OTHER, None, T0)


def test_a_lease_ends_at_the_instant_it_names(leases):
    leases.install(answer(leased()[0]), T0)
    assert leases.holds(LABEL, T0 + 899.999)
    with pytest.raises(LeaseExpired):
        leases.key_for(LABEL, None, T0 + 900)
    assert not leases.holds(LABEL, T0 + 900)
    assert leases.expire(T0 + 900).ended == {LABEL}
    with pytest.raises(LeaseMissing):
        leases.key_for(LABEL, None, T0)


def test_the_offline_term_counts_from_the_last_good_sync(leases):
    leases.install(answer(leased(offline=3600)[0]), T0)
    leases.install(answer(leased(offline=3600, now=T0 + 100)[0]), T0 + 100)
    assert leases.next_end() == T0 + 3700
    leases.key_for(LABEL, None, T0 + 3699)
    with pytest.raises(LeaseExpired):
        leases.key_for(LABEL, None, T0 + 3700)


def test_a_refusal_by_the_server_ends_offline_terms(leases):
    leases.install(answer(leased(offline=3600)[0]), T0)
    assert leases.refused(T0 + 10).ended == frozenset()
    leases.key_for(LABEL, None, T0 + 899)
    assert leases.expire(T0 + 900).ended == {LABEL}


def test_a_clock_turned_back_is_noticed_and_gains_nothing(leases):
    leases.install(answer(leased(offline=3600)[0]), T0)
    leases.key_for(LABEL, None, T0 + 800)
    assert not leases.rolled_back
    leases.key_for(LABEL, None, T0 + 799.5)
    assert not leases.rolled_back
    leases.key_for(LABEL, None, T0 + 100)
    assert leases.rolled_back
    with pytest.raises(LeaseExpired):
        leases.key_for(LABEL, None, T0 + 901)
    with pytest.raises(LeaseExpired):
        leases.key_for(LABEL, None, T0)
    leases.install(answer(leased(offline=3600, now=T0 + 950)[0]), T0 + 950)
    assert not leases.rolled_back


def test_what_a_sync_does_not_name_is_revoked_at_once_and_wiped_later(leases):
    leases.install(answer(leased()[0], leased(OTHER, lease="2f" * 16)[0]), T0)
    kept = leases.key_for(LABEL, None, T0).secret
    change = leases.install(answer(leased(OTHER, lease="2f" * 16)[0]), T0 + 1)
    assert change.ended == {LABEL}
    with pytest.raises(LeaseMissing):
        leases.key_for(LABEL, None, T0 + 1)
    assert not kept.wiped
    assert leases.forget([OTHER]) == ()
    assert leases.forget([LABEL]) == ("1e" * 16,)
    assert kept.wiped
    assert leases.forget() == ()


def test_renewal_keeps_the_key_that_is_held(leases):
    grant, keys = leased()
    leases.install(answer(grant), T0)
    held = leases.key_for(LABEL, None, T0).secret
    again = m.LeaseGrant(grant.lease, grant.label, grant.key_id, grant.keys, T0 + 5000, 0.0)
    assert leases.install(answer(again), T0 + 450) == (frozenset(), frozenset())
    assert leases.key_for(LABEL, None, T0 + 4000).secret is held


def test_a_version_taken_away_is_decided_again_but_the_lease_goes_on(leases):
    grant, _ = leased(versions=(1, 2))
    leases.install(answer(grant), T0)
    first, second = (leases.key_for(LABEL, version, T0).secret for version in (1, 2))
    newer = m.LeaseGrant(grant.lease, grant.label, grant.key_id, grant.keys[1:], grant.expires, 0.0)
    assert leases.install(answer(newer), T0 + 1).ended == {LABEL}
    assert leases.forget() == ()
    assert first.wiped
    assert not second.wiped
    assert leases.key_for(LABEL, None, T0 + 2).secret is second


def test_a_key_sealed_to_another_machine_changes_nothing(leases):
    leases.install(answer(leased()[0]), T0)
    foreign, _ = lend(SealingKey.generate().public, OTHER.hex(), expires=T0 + 900)
    with pytest.raises(SealingError):
        leases.install(answer(foreign), T0 + 1)
    assert leases.holds(LABEL, T0 + 1)


def test_a_ban_ends_everything(leases):
    leases.install(answer(leased()[0], leased(OTHER, lease="2f" * 16)[0]), T0)
    assert leases.revoke_all().ended == {LABEL, OTHER}
    assert set(leases.forget()) == {"1e" * 16, "2f" * 16}
    assert leases.status() == ()
    assert leases.renewal() is None
    assert leases.next_end() is None


def test_renewal_is_due_at_half_of_the_shortest_term(leases):
    leases.install(answer(leased(term=900)[0], leased(OTHER, term=60)[0]), T0)
    assert leases.renewal() == T0 + 30


GRANTS = {}
for name in (LABEL, OTHER):
    GRANTS[name] = lend(SEALING.public, name.hex(), expires=0.0, lease=name.hex())[0]

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("sync"),
            st.dictionaries(st.sampled_from([LABEL, OTHER]), st.tuples(st.integers(1, 50), st.integers(0, 100))),
        ),
        st.tuples(st.just("wait"), st.integers(0, 60)),
        st.tuples(st.sampled_from(["refused", "expire", "forget", "ban"]), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, asks=st.lists(st.integers(-30, 0), min_size=1, max_size=3))
def test_no_key_after_its_term_and_none_after_revocation(steps, asks):
    """The model: for each label the term of its lease and of its offline permission, and the instant of both."""
    leases = Leases(COMPANY, MACHINE, SEALING)
    now = T0
    model: dict[bytes, tuple[float, float]] = {}
    seen = []
    refused = False
    for step, value in steps:
        if step == "sync":
            grants = []
            for label, (term, offline) in value.items():
                old = GRANTS[label]
                grants.append(m.LeaseGrant(old.lease, old.label, old.key_id, old.keys, now + term, float(offline)))
            change = leases.install(answer(*grants), now)
            assert change.ended >= model.keys() - value.keys()
            model = {label: (now + term, now + offline) for label, (term, offline) in value.items()}
            refused = False
        elif step == "wait":
            now += value
        elif step == "refused":
            leases.refused(now)
            refused = True
        elif step == "expire":
            leases.expire(now)
        elif step == "forget":
            leases.forget()
        else:
            leases.revoke_all()
            model = {}
        model = {k: v for k, v in model.items() if now < (v[0] if refused else max(v))}
        for label in (LABEL, OTHER):
            try:
                key = leases.key_for(label, None, now)
                assert label in model
                assert not key.secret.wiped
                seen.append((label, key.secret))
            except (LeaseExpired, LeaseMissing):
                assert label not in model
    leases.revoke_all()
    leases.forget()
    assert all(secret.wiped for _, secret in seen)
    for back in asks:
        with pytest.raises(LeaseMissing):
            leases.key_for(LABEL, None, now + back)


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.floats(0, 200), min_size=1, max_size=20))
def test_a_term_that_was_over_once_stays_over_whatever_the_clock_says(times):
    leases = Leases(COMPANY, MACHINE, SEALING)
    old = GRANTS[LABEL]
    leases.install(answer(m.LeaseGrant(old.lease, old.label, old.key_id, old.keys, T0 + 100, 120.0)), T0)
    over = False
    for offset in times:
        usable = leases.holds(LABEL, T0 + offset)
        assert not (over and usable)
        over = over or not usable
