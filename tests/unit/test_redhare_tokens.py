"""The runtime's copy of the token's verifying half agrees with the contract's."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import tokens

RUNTIME = Path(__file__).parents[2] / "runtimes" / "redhare"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NOW = 1_000.0


@pytest.fixture(scope="module")
def copy() -> Iterator[ModuleType]:
    sys.path.insert(0, str(RUNTIME))
    try:
        import redhare_runtime.tokens

        yield redhare_runtime.tokens
    finally:
        sys.path.remove(str(RUNTIME))


def judge(module: Any, key: bytes, token: str) -> tuple[object, ...]:
    """What a module makes of a token."""
    try:
        claims = module.verify_token(key, token, now=NOW)
    except module.TokenRefused as refused:
        return ("refused", str(refused))
    return claims.subject, claims.owner, claims.expires_at, module.peek_subject(token)


claims = st.builds(
    tokens.Claims,
    subject=st.text(max_size=20),
    owner=st.none() | st.text(max_size=20),
    expires_at=st.none() | st.sampled_from([999, 1_000, 1_001]),
    key_id=st.none() | st.text(max_size=20),
)


@given(claims=claims, key=st.sampled_from([KEY, OTHER_KEY]))
def test_signed_tokens_are_judged_alike(copy: ModuleType, claims: tokens.Claims, key: bytes) -> None:
    token = tokens.sign_token(key, claims)
    verdict = judge(copy, KEY, token)
    assert verdict == judge(tokens, KEY, token)
    expired = claims.expires_at is not None and claims.expires_at <= NOW
    assert (verdict[0] == "refused") == (key is OTHER_KEY or expired) or claims.subject == "refused"


@given(token=st.text(max_size=80), signed=st.booleans(), at=st.integers(min_value=0, max_value=60))
def test_anything_else_is_refused_alike(copy: ModuleType, token: str, signed: bool, at: int) -> None:
    if signed:
        whole = tokens.sign_token(KEY, tokens.Claims("model", None, 2_000))
        token = f"{whole[:at]}x{whole[at + 1 :]}"
    assert judge(copy, KEY, token) == judge(tokens, KEY, token)
