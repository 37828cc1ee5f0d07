"""The first account of a server that makes none by itself."""

from __future__ import annotations

from easyml_server.app import now, open_signer
from easyml_server.data_folder import StartError, open_data_folder
from easyml_server.database import open_store
from easyml_server.domain.errors import EasyMLError
from easyml_server.security.passwords import Argon2Hasher
from easyml_server.security.tokens import new_secret, secret_hash
from easyml_server.services.auth import AuthService, Secrets
from easyml_server.settings import Settings

MIN_PASSWORD = 12
MAX_PASSWORD = 128


async def make_first_account(settings: Settings, email: str, password: str) -> None:
    """Make an administrator; StartError if the password or address will not do."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise StartError(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters; choose another.")
    if "@" not in email:
        raise StartError(f"{email!r} is no e-mail address.")
    with open_data_folder(settings.data_dir) as folder:
        async with open_store(settings, folder) as store:
            auth = AuthService(
                store,
                Argon2Hasher(),
                open_signer(settings, folder),
                Secrets(new_secret, secret_hash),
                settings.limits(),
                now,
                open_registration=False,
            )
            try:
                await auth.create_user(email, password, "", administrator=True)
            except EasyMLError as error:
                raise StartError(error.message) from error
