"""EasyML's server beside the tests' Kubernetes: what the API shows as the address of a pod is elsewhere here.

Started as `python -m tests.kubernetes.server`, with the arguments of `easyml-server`.
"""

from __future__ import annotations

from functools import partial

from easyml_server.__main__ import main
from easyml_server.deployers.kubernetes import deployer
from tests.kubernetes.addresses import here

if __name__ == "__main__":
    deployer.start_deployer = partial(deployer.start_deployer, resolve=here)  # type: ignore[assignment]
    main()
