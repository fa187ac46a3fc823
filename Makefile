# Every common task has a target; `make help` lists them. The work is done by scripts/, which document themselves.
.DEFAULT_GOAL := help
.PHONY: help run stop clean-demo test contracts fresh upgrade-test fuzz bench lint fmt sqlx web docs

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Install what is missing, set up the demo, serve on 127.0.0.1:5000
	@scripts/run.sh

stop: ## Stop the service and everything started with it; nothing is lost
	@scripts/stop.sh

clean-demo: ## Remove the demo: its guests, database and data folder (YES=1 skips the confirmation)
	@scripts/clean.sh

test: ## Run lint, all tests against real PostgreSQL and containers, and build the documentation
	@scripts/test.sh

contracts: ## Count served endpoints and events, by document
	@scripts/contracts.sh

fresh: ## Test the scripts on bare machines: Debian 12 and 13, as root and as a user
	@scripts/fresh.sh

upgrade-test: ## Run another version (OLD=commit, default the last tag) alongside this one, killing both in turn
	@scripts/upgrade-test.sh $(OLD)

fuzz: ## Fuzz the API with schemathesis, over 10,000 cases (SEED=n repeats a run)
	@scripts/fuzz.sh 200 $(SEED)

bench: ## Run benchmarks against comparable programs; prints a table, writes target/bench.json
	@scripts/bench.sh

lint: ## Check formatting, clippy and the dashboard; warnings are errors
	@scripts/lint.sh

fmt: ## Format the code
	@cargo fmt --all

sqlx: ## Check the queries against the migrations and update .sqlx/
	@scripts/sqlx.sh

web: ## Build the console's page and the dashboard, which are embedded into the program
	@scripts/web.sh

docs: ## Build the code's documentation in target/doc
	@SQLX_OFFLINE=true RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked
