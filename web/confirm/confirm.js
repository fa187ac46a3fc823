// The code is in the fragment, which never reaches a server's log. Opening the page does not confirm anything, because
// programs that scan emails open links.
"use strict";
const words = document.getElementById("words");
const button = document.getElementById("confirm");
button.addEventListener("click", async () => {
    button.disabled = true;
    try {
        const answer = await fetch("../api/auth/confirm", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ code: location.hash.slice(1) }),
        });
        if (answer.ok) {
            words.textContent = "Thank you. Your address is confirmed.";
            button.hidden = true;
            return;
        }
        const body = await answer.json();
        const fields = body.details && body.details.fields;
        words.textContent = (fields && fields.code) || body.error;
    } catch {
        words.textContent = "The service can't be reached; try again in a moment.";
    }
    button.disabled = false;
});
