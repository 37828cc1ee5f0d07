"""A real, small Kubernetes for the tests: a control plane in one program, and nodes whose containers are processes.

What is real: API server, etcd, controllers, scheduler, autoscaler, admission, RBAC, kubectl. What stands in: the
kubelet (`kubelet`), kube-proxy (`service_proxy`), the metrics server (`metrics`), and, where pods need not run
anything, kwok. docs/decisions/0032 says why, and what this is not.
"""
