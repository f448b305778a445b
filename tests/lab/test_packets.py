from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from k8snetc.lab import banner, packets
from k8snetc.lab.packets import Sctp


def test_crc32c_of_the_check_vector() -> None:
    # RFC 3720, B.4 (iSCSI uses the same polynomial): 32 bytes of zeros, and 0..31.
    assert packets.crc32c(bytes(32)) == 0x8A9136AA
    assert packets.crc32c(bytes(range(32))) == 0x46DD794E
    assert packets.crc32c(b"123456789") == 0xE3069283


@given(st.sampled_from([1, 2]), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=90))
def test_sctp_reads_what_it_writes(chunk: int, port: int, tag: int, cookie: bytes) -> None:
    packet = Sctp(port, 9999, chunk, tag, tag ^ 1, cookie)
    assert packets.decode_sctp(packet.encode()) == packet


@given(st.binary(max_size=80))
def test_garbage_is_no_packet(data: bytes) -> None:
    assert packets.decode_sctp(data) is None


def test_a_changed_bit_is_noticed() -> None:
    data = bytearray(Sctp(1, 2, packets.INIT, own_tag=7).encode())
    data[1] ^= 1
    assert packets.decode_sctp(bytes(data)) is None


def test_banner_reads_what_it_writes() -> None:
    line = banner.write("pod/shop/a", ("fd00::1", 80), ("fd00::2", 999))
    assert banner.read(line) == ("pod/shop/a", (ip_address("fd00::1"), 80), (ip_address("fd00::2"), 999))
    assert banner.read(b"220 mail.example ESMTP\r\n") is None
