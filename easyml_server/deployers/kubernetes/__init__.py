"""Where deployments run on a Kubernetes cluster: a Deployment of model servers for each revision."""
