// The code is behind the #, where no server's log gets to see it. Nothing is confirmed by opening the page: programs
// that look into mails do that.
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
