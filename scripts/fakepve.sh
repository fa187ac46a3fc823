#!/usr/bin/env bash
# Installs fakepve, which simulates Proxmox VE in tests, into target/fakepve.
exec "$(dirname "$0")/venv.sh" fakepve 'fakepve[crypto]==0.5.0'
