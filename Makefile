# setup · demo · up · down · test · lint · bench · history · notebook. Needs Python 3.11 or later and make; brings the rest.
PYTHON ?= python3
BIN := .venv/bin
# Test processes side by side, each with a Spark of up to 4 GiB and services of its own; 0: one, in this process
WORKERS ?= 2

.PHONY: help setup demo up down test lint bench bench-live bench-dashboard dashboard history notebook clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/	/' | expand -t 12

setup: ## Java, .venv, locked jars
	@$(PYTHON) tools/bootstrap.py setup

demo: setup ## the sample market, from prices to watchlists (HEADLESS=1: check and end)
	@$(BIN)/python tools/demo.py $(if $(HEADLESS),--headless)

up: setup ## Kafka, Redis and PostgreSQL on 127.0.0.1, but for those named in the environment
	@$(BIN)/sise services up

down: setup ## stops what make up started
	@$(BIN)/sise services down

test: setup ## lint and every test
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python tools/bootstrap.py browser
	@JAVA_HOME="$$($(BIN)/python tools/bootstrap.py java)" $(BIN)/python -m pytest \
		-n $(WORKERS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check lib jobs tests bench tools
	@$(BIN)/mypy

bench: setup ## full rebuild and the day beside polars, DuckDB, TA-Lib and pandas
	@JAVA_HOME="$$($(BIN)/python tools/bootstrap.py java)" $(BIN)/python bench/batch.py $(BENCH_ARGS)

bench-live: setup ## latency from tick to signal, and the highest rate that is sustained
	@JAVA_HOME="$$($(BIN)/python tools/bootstrap.py java)" PYTHONPATH=. $(BIN)/python bench/live.py $(BENCH_ARGS)

bench-dashboard: setup ## 50 viewers at once: how late a signal arrives
	@JAVA_HOME="$$($(BIN)/python tools/bootstrap.py java)" PYTHONPATH=. $(BIN)/python bench/dashboard.py $(BENCH_ARGS)

dashboard: setup ## the viewer, 127.0.0.1:8501
	@$(BIN)/sise dashboard

history: setup ## the Spark history server on .local/spark-events, 127.0.0.1:18080
	@mkdir -p .local/spark-events && echo "history server: http://127.0.0.1:18080 (Ctrl-C ends it)"
	@SPARK_LOCAL_IP=127.0.0.1 SPARK_HISTORY_OPTS="-Dspark.port.maxRetries=0 \
		\"-Dspark.history.fs.logDirectory=file://$(CURDIR)/.local/spark-events\"" \
		tools/spark-class.sh org.apache.spark.deploy.history.HistoryServer

notebook: setup ## Jupyter on notebooks/, 127.0.0.1
	@JAVA_HOME="$$($(BIN)/python tools/bootstrap.py java)" $(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir notebooks

clean: ## stops the services, removes .venv, .local and the demo's lake
	@[ ! -d .local/services ] || $(BIN)/sise services down
	@[ ! -d .local/demo/services ] || SISE_LOCAL=.local/demo $(BIN)/sise services down
	@rm -rf .venv .local
