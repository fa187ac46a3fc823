#!/usr/bin/env bash
# Installs aiosmtpd, the mail server used in tests, into target/smtpd.
exec "$(dirname "$0")/venv.sh" smtpd aiosmtpd==1.4.6
