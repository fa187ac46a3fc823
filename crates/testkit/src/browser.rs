//! Chromium with one window, driven by a test.

use serde_json::{Value, json};

use crate::Live;

/// A running `tests/js/console.mjs`.
pub struct Browser(Live);

impl Browser {
    pub fn new() -> Self {
        Self(Live::script("console.mjs", &[]))
    }

    /// Runs a command and returns its result; fails the test if it could not be done.
    pub async fn tell(&mut self, command: Value) -> Value {
        let said = command.to_string();
        self.0.tell(command).await;
        let answer = self.0.any(std::time::Duration::from_secs(120)).await.expect("the browser answers");
        assert_eq!(answer["event"], "done", "{said}: {}", answer["args"][0].as_str().unwrap_or_default());
        answer["args"][0].clone()
    }

    pub async fn open(&mut self, url: &str) {
        self.tell(json!({ "do": "open", "url": url })).await;
    }

    /// Waits until the terminal shows what a regular expression matches.
    pub async fn see(&mut self, text: &str) -> String {
        self.tell(json!({ "do": "see", "text": text })).await.as_str().unwrap_or_default().to_owned()
    }

    /// Whether it shows that within two seconds, as it does unless what was typed got lost.
    pub async fn shows(&mut self, text: &str) -> bool {
        self.tell(json!({ "do": "shows", "text": text })).await == true
    }

    /// Types a line and Enter.
    pub async fn line(&mut self, text: &str) {
        self.tell(json!({ "do": "type", "text": text })).await;
        self.tell(json!({ "do": "press", "key": "Enter" })).await;
    }

    pub async fn status(&mut self, text: &str) {
        self.tell(json!({ "do": "status", "text": text })).await;
    }

    /// Waits for the card that covers the page: its title, its text, and whether it offers to reconnect.
    pub async fn notice(&mut self) -> (String, String, bool) {
        let notice = self.tell(json!({ "do": "notice" })).await;
        let text = |key: &str| notice[key].as_str().unwrap_or_default().to_owned();
        (text("title"), text("words"), notice["again"] == true)
    }

    /// Takes a screenshot if `INNKEEPER_TEST_SHOTS` names a folder for them.
    pub async fn shot(&mut self, name: &str) {
        if let Ok(folder) = std::env::var("INNKEEPER_TEST_SHOTS") {
            self.tell(json!({ "do": "shot", "path": format!("{folder}/{name}.png") })).await;
        }
    }
}
