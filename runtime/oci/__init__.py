"""Our runtime for others: the command line of an OCI runtime, so that podman or containerd can drive it."""
