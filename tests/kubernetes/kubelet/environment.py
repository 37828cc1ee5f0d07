"""The variables of a container, and $(NAME) in what refers to them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kubernetes.aio.client import V1Container, V1EnvVar, V1Pod

from tests.kubernetes.addresses import here
from tests.kubernetes.kubelet.configuration import Configuration, key_of

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) is the variable's value where there is one; $$ is a dollar sign."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return _REFERENCE.sub(value, text)


async def variables_of(
    pod: V1Pod, container: V1Container, address: str, configuration: Configuration
) -> dict[str, str]:
    """From ConfigMaps, Secrets and the pod itself; raises NotYet where one of them is missing."""
    variables: dict[str, str] = {}
    for source in container.env_from or []:
        if source.config_map_ref:
            ref = source.config_map_ref
            content = await configuration.config_map(ref.name, optional=ref.optional)
        else:
            ref = source.secret_ref
            content = await configuration.secret(ref.name, optional=ref.optional)
        variables |= {f"{source.prefix or ''}{key}": value.decode() for key, value in content.items()}
    for entry in container.env or []:
        value = await _value_of(entry, _facts(pod, address), variables, configuration)
        if value is not None:
            variables[entry.name] = value
    return variables


async def _value_of(
    entry: V1EnvVar, facts: Mapping[str, str], variables: Mapping[str, str], configuration: Configuration
) -> str | None:
    source = entry.value_from
    if source is None:
        return expanded(entry.value or "", variables)
    if source.config_map_key_ref:
        ref = source.config_map_key_ref
        content = await configuration.config_map(ref.name, optional=ref.optional)
        return key_of(content, ref.key, f"ConfigMap {ref.name}", optional=ref.optional)
    if source.secret_key_ref:
        ref = source.secret_key_ref
        content = await configuration.secret(ref.name, optional=ref.optional)
        return key_of(content, ref.key, f"Secret {ref.name}", optional=ref.optional)
    return facts[source.field_ref.field_path]


def _facts(pod: V1Pod, address: str) -> Mapping[str, str]:
    """The address is the one that can be listened on."""
    facts = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "status.podIP": here(address),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
    }
    labels = {f"metadata.labels['{key}']": value for key, value in (pod.metadata.labels or {}).items()}
    annotations = {f"metadata.annotations['{key}']": value for key, value in (pod.metadata.annotations or {}).items()}
    return {**facts, **labels, **annotations}
