"""A kubelet whose containers are processes of this machine; no root, and no images.

What an image holds is told by `images`; the command is looked for beside this Python and in PATH. Pods have what
EasyML's need: environment, volumes (ConfigMap, Secret, emptyDir), the three probes (gRPC, HTTP, TCP, exec), restarts
with a back-off, graceful ends with preStop, logs, events, and conditions as of the real one.

Since a process sees the file system as it is, paths that begin with a mount path are rewritten to the folder of that
volume, in arguments and variables; 0.0.0.0 becomes the pod's address; TMPDIR names what is mounted at /tmp. Programs
that have such a path in themselves do not find it, a service account's token for example. Not here either: init
containers, volumes of other kinds, limits of processors and memory, other users, a root that is read-only, and network
policies. Back-offs are 0.5 to 5 s in place of 10 to 300, and what is not ready yet is asked five times a second.
"""
