"""Tests on a real Docker engine and a real Kubernetes: those of DOCKER_HOST and KUBECONFIG. ./brain test --engines"""
