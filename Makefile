# Every habit has a target; `make help` lists them. The work is done by scripts/, which say what they do.
.DEFAULT_GOAL := help
.PHONY: help run stop clean-demo test contracts fresh upgrade-test fuzz bench lint fmt sqlx web docs

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Install what is missing, prepare the demo, serve on 127.0.0.1:5000
	@scripts/run.sh

stop: ## End the service and what runs beside it; nothing is lost
	@scripts/stop.sh

clean-demo: ## Remove the demo: its guests, database and data folder (YES=1 doesn't ask)
	@scripts/clean.sh

test: ## Lint, all tests against real PostgreSQL and containers, documentation
	@scripts/test.sh

contracts: ## Served endpoints and events, by document
	@scripts/contracts.sh

fresh: ## The scripts on machines that have nothing: Debian 12 and 13, as root and as a user
	@scripts/fresh.sh

upgrade-test: ## Another version (OLD=commit, the last tag) beside this one, both killed in turn
	@scripts/upgrade-test.sh $(OLD)

fuzz: ## schemathesis, more than 10,000 cases (SEED=n repeats a run)
	@scripts/fuzz.sh 200 $(SEED)

bench: ## Benchmarks beside their peers: a table and target/bench.json
	@scripts/bench.sh

lint: ## Formatting and clippy, warnings are errors
	@scripts/lint.sh

fmt: ## Format the code
	@cargo fmt --all

sqlx: ## Check the queries against the migrations, rewrite .sqlx/
	@scripts/sqlx.sh

web: ## Build the console's page, which the program takes in
	@scripts/web.sh

docs: ## The code's documentation, in target/doc
	@SQLX_OFFLINE=true RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked
