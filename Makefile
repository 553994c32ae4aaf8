# Each verb does its own set-up; each also works in CodeBuild. `make` alone prints them.
PYTHON ?= python3
IMAGE ?= berth:latest
TARGET ?= image
BASE_IMAGE ?= debian:trixie-slim
DATA ?= model/sample
MODEL ?= build/ml/model
HYPERPARAMETERS ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
# Where the code is, without the credentials that a clone's address may hold.
SOURCE = $(or $(shell git remote get-url origin 2>/dev/null | sed -nE 's|^git@([^:]+):|https://\1/|; s|^https?://([^@/]*@)?|https://|p'),unknown)
# T-7: SageMaker takes Docker's own manifest type for one platform; buildx makes an OCI index unless told not to.
SINGLE_MANIFEST = $(shell docker build --help 2>/dev/null | grep -q -e --provenance && echo --provenance=false --sbom=false --output type=docker)
KNOBS = $(foreach pair,$(HYPERPARAMETERS),--hyperparameter $(pair))
RUN = .venv/bin/python -m local_test
DEPLOY = .venv-deploy/bin/python -m deploy
DEPLOY_VERBS = preflight train tune approve rollback autoscale invoke async batch status logs delete
PAYLOAD ?= build/payload.csv
CONTENT_TYPE ?= text/csv
# Without a PAYLOAD of the caller's: the rows that training stored with the model of `make run`.
SAMPLE_PAYLOAD = $(if $(filter build/payload.csv,$(PAYLOAD)),{ [ -f build/ml/model/manifest.json ] || $(RUN) run --data '$(DATA)' >/dev/null; } && $(RUN).payloads build/ml/model > $(PAYLOAD) &&)

# With the sample data it is Berth's own model that is judged, and a fit that is long enough to keep checkpoints.
OWN = $(if $(filter model/sample,$(DATA)),$(if $(KNOBS),,--hyperparameter max_iter=60 --hyperparameter checkpoint_interval_s=0.1))

help: ## print these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile
	@echo 'make VERB           what `python -m deploy VERB` does, with ARGS="--flag .." (docs/deploy.md): $(DEPLOY_VERBS)'

run: setup ## train on the sample data, serve, call with every kind of payload, stop: DATA=, HYPERPARAMETERS="name=value .."
	@$(RUN) run --data '$(DATA)' $(KNOBS)

serve: setup ## the same, but leave the server running on port 8080 (PORT=)
	@$(RUN) serve --data '$(DATA)' $(KNOBS)

test: setup-test ## run every test this machine can run; REQUIRE_ALL=1 fails where one can't
	.venv/bin/python -m pytest

image: ## build the image: IMAGE=name:tag, BASE_IMAGE=, TARGET=edge for devices
	docker build --file container/Dockerfile --target $(TARGET) --tag $(IMAGE) --platform linux/amd64 $(SINGLE_MANIFEST) \
	  --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg SOURCE=$(SOURCE) .

export: setup-export ## make models for devices of MODEL, in MODEL/edge, judged on DATA: ARGS="tflite --out DIR .."
	@[ -f '$(MODEL)/manifest.json' ] || [ '$(MODEL)' != build/ml/model ] || $(RUN) run --data '$(DATA)' >/dev/null
	@.venv/bin/python -m edge export --model '$(MODEL)' --data '$(DATA)' $(ARGS)

photos: setup-export ## build the demo model of image classification, build/photos, and judge it on photos: ARGS="--out DIR"
	@.venv/bin/python -m edge photos $(ARGS)

base-image: ## make the base from the Debian archive, where no registry can be reached: BASE_IMAGE=, MIRROR=, CA_BUNDLE=
	MIRROR='$(MIRROR)' CA_BUNDLE='$(CA_BUNDLE)' container/base $(BASE_IMAGE)

run-image: setup ## what `run` does, in containers of IMAGE
	@$(RUN) run --data '$(DATA)' --image $(IMAGE) $(KNOBS)

local-mode: ## train and serve IMAGE through the SageMaker SDK's own local mode, versions 3 and 2
	@mkdir -p build && $(PYTHON) .ci/venv .venv-sdk3 sdk3 && $(PYTHON) .ci/venv .venv-sdk2 sdk2
	@.venv-sdk3/bin/python -m local_test.sdk.v3 --image $(IMAGE) --data '$(DATA)' $(KNOBS)
	@.venv-sdk2/bin/python -m local_test.sdk.v2 --image $(IMAGE) --data '$(DATA)' $(KNOBS)

rehearse: setup-test ## build, push, train, serve, update, roll back and delete, on this machine alone: ARGS="--without build .."
	@$(PYTHON) .ci/venv .venv-sdk3 sdk3
	@$(RUN).rehearsal --image berth:rehearsal $(ARGS)

conformance: setup ## judge IMAGE by every platform's rules: DATA=, PAYLOAD=, CONTENT_TYPE=, ARGS="--junit FILE .."
	@$(SAMPLE_PAYLOAD) $(RUN) conformance $(IMAGE) --train-data '$(DATA)' --payload $(PAYLOAD) --content-type $(CONTENT_TYPE) $(KNOBS) $(OWN) $(ARGS)

foreign: setup-test ## judge servers that others wrote, each in an image of its own, and write docs/conformance.md's table
	@$(RUN).foreign --write docs/conformance.md

doctor: setup ## tell in plain words why an endpoint or a training job of IMAGE would fail: DATA=, PAYLOAD=, ARGS=
	@$(SAMPLE_PAYLOAD) $(RUN) doctor $(IMAGE) --train-data '$(DATA)' --payload $(PAYLOAD) --content-type $(CONTENT_TYPE) $(KNOBS) $(ARGS)

soak: setup-test ## measure at length, in containers of IMAGE too, and write docs/measured.md: SECTIONS=
	@$(RUN) soak --data '$(DATA)' --image $(IMAGE) --sections $(SECTIONS)

load: setup-test ## requests/s, latency, CPU and memory beside a bare server and others, to docs/measured.md: ARGS="--only csv-1-16 .."
	@$(RUN) load --data '$(DATA)' $(KNOBS) $(or $(ARGS),--write docs/measured.md)

scan: setup-deploy ## look for known vulnerabilities in IMAGE, and fail by those that are severe: ARGS="--fail-on high .."
	@$(DEPLOY) scan $(ARGS) $(IMAGE)

sbom: ## write what IMAGE is made of, build/sbom.cdx.json (CycloneDX)
	@mkdir -p build && docker run --rm --network none $(IMAGE) cat /opt/berth/sbom.cdx.json > build/sbom.part && mv build/sbom.part build/sbom.cdx.json

push: setup-deploy ## scan and judge IMAGE, and push it to ECR, Docker Hub or any registry: ARGS="--registry .."
	@$(DEPLOY) push --image $(IMAGE) $(ARGS)

deploy: setup-deploy ## make the endpoint of what was pushed and trained, or update it step by step: ARGS="--kind serverless .."
	@$(DEPLOY) endpoint $(ARGS)

publish: setup-test ## what sells the product on AWS Marketplace: ARGS="algorithm .." or "model ..", "kit --out DIR"; first "check"
	@.venv/bin/python -m deploy publish $(ARGS)

fresh: setup-test ## propose a newer requirements.lock, and announce what became known of the images that run: ARGS="--topic .."
	@.venv/bin/python -m deploy fresh $(ARGS)

$(DEPLOY_VERBS): setup-deploy
	@$(DEPLOY) $@ $(ARGS)

cloud: setup-test ## serve the AWS that stands in for tests and rehearsals, and print what points boto3 to it: ARGS="--registry .."
	@$(RUN).cloud $(ARGS)

settings: setup-test ## write docs/deploy.md's table of settings from deploy/settings.py
	@.venv/bin/python -m deploy settings --write docs/deploy.md

hyperparameters: setup ## write docs/hyperparameters.md from model/hyperparameters.py
	@.venv/bin/python container/train --markdown > build/hyperparameters.md && mv build/hyperparameters.md docs/hyperparameters.md

lint: setup-test ## check style, types and the Dockerfile
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/hadolint container/Dockerfile edge/compiler/Dockerfile

format: setup-test ## format the code
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

lock: setup-test ## choose versions anew and write requirements.lock
	.ci/lock > build/requirements.lock && mv build/requirements.lock requirements.lock

clean: ## remove environments and build output
	rm -rf .venv .venv-* build .mypy_cache .ruff_cache .pytest_cache .hypothesis

setup:
	@mkdir -p build && $(PYTHON) .ci/venv .venv image

setup-deploy:
	@mkdir -p build && $(PYTHON) .ci/venv .venv-deploy deploy

setup-export:
	@mkdir -p build && $(PYTHON) .ci/venv .venv export

setup-test:
	@mkdir -p build && $(PYTHON) .ci/venv .venv test

.PHONY: help run serve test image export photos base-image run-image local-mode rehearse conformance foreign doctor soak load scan sbom push deploy publish fresh $(DEPLOY_VERBS) cloud settings hyperparameters lint format lock clean setup setup-deploy setup-export setup-test
