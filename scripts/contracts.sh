#!/usr/bin/env bash
# make contracts: how many endpoints and events of each document are served. tests/contracts.rs checks that the states
# in rows.tsv are true.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

awk -F'\t' '
    function count(document, what) {
        if (!all[document, what]) return ""
        return sprintf("%d/%d %s", served[document, what], all[document, what], what)
    }
    function line(name, document) {
        text = sprintf("%-18s%17s%15s", name, count(document, "endpoints"), count(document, "events"))
        sub(/ +$/, "", text)
        print text
    }
    NR == 1 { next }
    {
        what = $3 == "EVENT" ? "events" : "endpoints"
        if (!($2 in seen)) { seen[$2]; order[++documents] = $2 }
        all[$2, what]++
        all["*", what]++
        if ($5 == "served") {
            served[$2, what]++
            served["*", what]++
        }
    }
    END {
        for (n = 1; n <= documents; n++) {
            name = order[n]
            gsub("-", " ", name)
            line(name, order[n])
        }
        line("all", "*")
    }
' "$ROOT/tests/contracts/rows.tsv"
