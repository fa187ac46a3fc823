// The secret is in the fragment, which never reaches a server's log. Opening the page uses nothing up, because programs
// that scan messages open links. The access token is shown and kept nowhere: it is gone with the page.
"use strict";
const words = document.getElementById("words");
const button = document.getElementById("open");
button.addEventListener("click", async () => {
    button.disabled = true;
    try {
        const answer = await fetch("../api/auth/login-link", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ token: location.hash.slice(1) }),
        });
        const body = await answer.json();
        if (answer.ok) {
            const minutes = Math.round(body.expiresIn / 60);
            words.textContent = `You are signed in as ${body.user.email} for ${minutes} minutes.`;
            document.getElementById("token").value = body.accessToken;
            document.getElementById("given").hidden = false;
            button.hidden = true;
            history.replaceState(null, "", location.pathname);
            return;
        }
        words.textContent = body.error;
    } catch {
        words.textContent = "The service can't be reached; try again right away.";
    }
    button.disabled = false;
});
