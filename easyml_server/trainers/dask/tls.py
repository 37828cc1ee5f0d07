"""Certificates towards the cluster, as Dask's own configuration names them."""

from __future__ import annotations

from distributed.security import Security

WHERE = (
    "name them in Dask's configuration (DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY)"
)


def missing_certificates() -> str | None:
    """What is wrong with them; None if they can be used."""
    try:
        found = Security().get_connection_args("client").get("ssl_context")
    except (OSError, TypeError, ValueError) as error:
        return f"tls:// needs certificates, and these cannot be read ({error}); {WHERE}."
    return None if found else f"tls:// needs certificates, and there are none; {WHERE}."
