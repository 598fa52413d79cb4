import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.runtime.network import dnswire

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


@given(NAME, st.lists(st.ip_addresses(v=4).map(str), max_size=5))
def test_answers_read_as_another_library_reads_them(name: str, addresses: list[str]) -> None:
    asked = dnslib.DNSRecord.question(name.upper(), "A")
    question = dnswire.parse(asked.pack())
    assert (question.name, question.type) == (name, dnswire.A)
    reply = dnslib.DNSRecord.parse(dnswire.answer(question, [dnswire.address(ip) for ip in addresses]))
    assert reply.header.id == asked.header.id and reply.header.qr and reply.header.aa and reply.header.ra
    assert [str(record.rdata) for record in reply.rr] == addresses
    assert all(record.ttl <= 5 for record in reply.rr)


def test_a_pointer_gives_a_name() -> None:
    question = dnswire.parse(dnslib.DNSRecord.question("2.0.17.172.in-addr.arpa", "PTR").pack())
    assert dnswire.reversed_address(question.name) == "172.17.0.2"
    reply = dnslib.DNSRecord.parse(dnswire.answer(question, [dnswire.name("web")]))
    assert str(reply.rr[0].rdata) == "web."


def test_a_long_answer_is_cut_for_udp() -> None:
    question = dnswire.parse(dnslib.DNSRecord.question("web", "A").pack())
    cut = dnswire.truncated(dnswire.answer(question, [bytes(4)] * 100))
    reply = dnslib.DNSRecord.parse(cut)
    assert reply.header.tc and not reply.rr and str(reply.q.qname) == "web."


@given(st.binary(max_size=80))
def test_garbage_is_refused_and_never_crashes(message: bytes) -> None:
    try:
        dnswire.parse(message)
    except dnswire.Malformed:
        return


@pytest.mark.parametrize("message", [b"", bytes(12), dnslib.DNSRecord.question("a").reply().pack()])
def test_anything_but_one_question_is_malformed(message: bytes) -> None:
    with pytest.raises(dnswire.Malformed):
        dnswire.parse(message)
