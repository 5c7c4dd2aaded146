# A real Kubernetes with KubeRay on this machine: docs/development.md. Any python3 ≥ 3.11 runs it.
CLUSTER_PYTHON ?= python3
CLUSTER = $(CLUSTER_PYTHON) tools/cluster
FAULTS = tests/e2e/test_operator_faults.py

.PHONY: cluster cluster-down cluster-status cluster-binaries images kubectl e2e e2e-faults

cluster: ## Start the local cluster, or repair what does not run (root)
	@$(CLUSTER) up

cluster-down: ## End the local cluster and leave nothing of it behind
	@$(CLUSTER) down

cluster-status: ## Say what of the local cluster runs and where its logs are
	@$(CLUSTER) status

cluster-binaries: ## Build Kubernetes, etcd, KubeRay, helm and KWOK from their Go modules
	@$(CLUSTER) binaries

images: ## Build the images and load them into the local cluster, if it runs
	@$(CLUSTER) images

kubectl: ## Run kubectl on the local cluster: make kubectl ARGS="get nodes"
	@$(CLUSTER) kubectl $(ARGS)

e2e: $(ENV) ## Run the tests that need a cluster: KUBECONFIG's, or one of their own (root)
	@tools/cluster/e2e.sh tests/e2e --ignore=$(FAULTS) $(ARGS)

e2e-faults: $(ENV) ## Run all that jobs go through on a cluster: lost heads and nodes, suspension, deletion (root)
	@tools/cluster/e2e.sh tests/e2e/test_readme.py tests/e2e/test_operator.py $(FAULTS) $(ARGS)
