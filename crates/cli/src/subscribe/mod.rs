//! What an app has to be subscribed to so that a stack gets its events: the difference to what it is, and its making.

pub mod graph;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use whatsapp_webhook::{credentials::AppCredentials, routes::CATCH_ALL};

use crate::{
    aws::stack_info::StackInfo,
    subscribe::graph::{Graph, GraphError, Id, OBJECT, Subscription, Token},
};

/// What is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// The app.
    pub app: Id,
    /// Accounts whose events the app is to get.
    pub accounts: Vec<Id>,
    /// Where the events are to go.
    pub callback_url: String,
    /// The fields; none means those that have a queue.
    pub fields: Option<Vec<String>>,
    /// Whether a field that is subscribed to and not wanted is dropped.
    pub replace: bool,
    /// The queues of each field that has any.
    pub routed: BTreeMap<String, Vec<String>>,
}

/// What is, and what is to be done about it.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The app.
    pub app: Id,
    /// Where events go now, if they do.
    pub callback_url_now: Option<String>,
    /// Whether Meta sends any there now.
    pub active_now: bool,
    /// Where they are to go.
    pub callback_url: String,
    /// Every field that has a queue, is subscribed to or wanted.
    pub fields: Vec<FieldPlan>,
    /// The accounts that were named.
    pub accounts: Vec<AccountPlan>,
}

/// One field.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FieldPlan {
    /// Its name.
    pub field: String,
    /// The queues of its events; without any, they go to the catch-all.
    pub queues: Vec<String>,
    /// What is to be done about it.
    pub step: Step,
}

/// What is to be done about a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Nothing: it is subscribed to.
    Keep,
    /// It has to be subscribed to.
    Subscribe,
    /// It is not wanted, and dropped.
    Drop,
    /// Nothing: it has a queue, but is neither wanted nor subscribed to.
    Leave,
}

/// One account.
#[derive(Debug, Serialize)]
pub struct AccountPlan {
    /// Its id.
    pub account: Id,
    /// Whether the app gets its events.
    pub subscribed: bool,
    /// Where its events about messages go, if elsewhere.
    pub override_callback_uri: Option<String>,
}

/// The app's own token, and the one for its accounts if there is any.
#[derive(Debug)]
pub struct Tokens {
    /// For the app.
    pub app: Token,
    /// For its accounts.
    pub accounts: Option<Token>,
}

impl Wanted {
    /// The queues of each field, without the stack's name.
    #[must_use]
    pub fn routed(stack: &StackInfo) -> BTreeMap<String, Vec<String>> {
        let prefix = format!("{}-", stack.stack);
        let mut routed = BTreeMap::<_, Vec<_>>::new();
        for (route, url) in stack.queue_urls.iter().filter(|(route, _)| *route != CATCH_ALL) {
            let field = route.split_once('.').map_or(route.as_str(), |(field, _)| field);
            let queue = url.rsplit('/').next().unwrap_or(url);
            let queue = queue.strip_prefix(&prefix).unwrap_or(queue);
            routed.entry(field.to_owned()).or_default().push(queue.to_owned());
        }
        routed
    }

    /// Asks Meta what is, and compares.
    pub async fn plan(&self, graph: &Graph, tokens: &Tokens) -> Result<Plan, GraphError> {
        let now = graph.subscriptions(&self.app, &tokens.app).await?;
        let now = now.into_iter().find(|one| one.object == OBJECT);
        let mut accounts = Vec::new();
        for account in &self.accounts {
            let token = tokens.accounts.as_ref().unwrap_or(&tokens.app);
            let apps = graph.subscribed_apps(account, token).await?;
            let ours = apps.into_iter().find(|one| one.app.id == self.app.to_string());
            accounts.push(AccountPlan {
                account: account.clone(),
                subscribed: ours.is_some(),
                override_callback_uri: ours.and_then(|ours| ours.override_callback_uri),
            });
        }
        Ok(Plan {
            app: self.app.clone(),
            fields: self.fields(now.as_ref()),
            active_now: now.as_ref().is_some_and(|now| now.active),
            callback_url_now: now.map(|now| now.callback_url),
            callback_url: self.callback_url.clone(),
            accounts,
        })
    }

    fn fields(&self, now: Option<&Subscription>) -> Vec<FieldPlan> {
        let now: BTreeSet<_> = now.iter().flat_map(|now| &now.fields).map(|field| field.name.clone()).collect();
        let wanted: BTreeSet<_> = self
            .fields
            .as_ref()
            .map_or_else(|| self.routed.keys().cloned().collect(), |fields| fields.iter().cloned().collect());
        let all: BTreeSet<_> = self.routed.keys().chain(&now).chain(&wanted).collect();
        all.into_iter()
            .map(|field| FieldPlan {
                field: field.clone(),
                queues: self.routed.get(field).cloned().unwrap_or_default(),
                step: match (now.contains(field), wanted.contains(field)) {
                    (true, false) if self.replace => Step::Drop,
                    (true, _) => Step::Keep,
                    (false, true) => Step::Subscribe,
                    (false, false) => Step::Leave,
                },
            })
            .collect()
    }
}

impl Plan {
    /// Whether the app's subscription is as wanted.
    #[must_use]
    pub fn app_is_done(&self) -> bool {
        let is_done = |field: &FieldPlan| matches!(field.step, Step::Keep | Step::Leave);
        let goes_here = self.active_now && self.callback_url_now.as_ref() == Some(&self.callback_url);
        goes_here && self.fields.iter().all(is_done)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.app_is_done() && self.accounts.iter().all(|account| account.subscribed)
    }

    /// Does it: the app first, since accounts that are subscribed to nothing would send nothing.
    pub async fn apply(&self, graph: &Graph, tokens: &Tokens, verify_token: &str) -> Result<(), GraphError> {
        if !self.app_is_done() {
            let of = |field: &&FieldPlan| matches!(field.step, Step::Keep | Step::Subscribe);
            let fields: Vec<_> = self.fields.iter().filter(of).map(|field| field.field.clone()).collect();
            graph.subscribe(&self.app, &tokens.app, &self.callback_url, verify_token, &fields).await?;
        }
        for account in self.accounts.iter().filter(|account| !account.subscribed) {
            let token = tokens.accounts.as_ref().unwrap_or(&tokens.app);
            graph.subscribe_account(&account.account, token).await?;
        }
        Ok(())
    }
}

impl Tokens {
    /// Those of the app whose secret is among the stack's: several apps may share one.
    pub async fn of(
        graph: &Graph,
        app: &Id,
        known: &AppCredentials,
        access_token: Option<&str>,
    ) -> Result<Self, GraphError> {
        let secrets = &known.app_secrets;
        let mut at = 0;
        loop {
            let token = Token::of_app(app, &secrets[at]);
            match graph.subscriptions(app, &token).await {
                Err(error) if error.is_of_token() && at + 1 < secrets.len() => at += 1,
                answer => {
                    answer?;
                    return Ok(Self {
                        app: token,
                        accounts: access_token.map(|user| Token::of_user(user, &secrets[at])),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::graph::Field;

    fn wanted(fields: Option<&[&str]>, replace: bool) -> Wanted {
        Wanted {
            app: "1".parse().unwrap(),
            accounts: Vec::new(),
            callback_url: "https://new.example/webhook".to_owned(),
            fields: fields.map(|fields| fields.iter().map(|&field| field.to_owned()).collect()),
            replace,
            routed: Wanted::routed(&StackInfo {
                queue_urls: ["*", "messages", "messages.statuses", "security"]
                    .map(|route| (route.to_owned(), format!("https://sqs/1/a-stack-{}", route.replace('.', "-"))))
                    .into(),
                ..StackInfo::for_tests()
            }),
        }
    }

    fn steps(wanted: &Wanted, now: &[&str]) -> Vec<(String, Step)> {
        let fields = now.iter().map(|&name| Field { name: name.to_owned() }).collect();
        let now = Subscription { object: OBJECT.to_owned(), callback_url: String::new(), active: true, fields };
        wanted.fields(Some(&now)).into_iter().map(|plan| (plan.field, plan.step)).collect()
    }

    fn expected(steps: &[(&str, Step)]) -> Vec<(String, Step)> {
        steps.iter().map(|&(field, step)| (field.to_owned(), step)).collect()
    }

    #[test]
    fn what_has_a_queue_is_subscribed_to_and_what_is_subscribed_to_is_kept() {
        let steps = steps(&wanted(None, false), &["calls", "messages"]);

        assert_eq!(steps, expected(&[("calls", Step::Keep), ("messages", Step::Keep), ("security", Step::Subscribe)]));
    }

    #[test]
    fn named_fields_are_added_and_the_others_shown() {
        let steps = steps(&wanted(Some(&["flows"]), false), &["calls"]);

        assert_eq!(
            steps,
            expected(&[
                ("calls", Step::Keep),
                ("flows", Step::Subscribe),
                ("messages", Step::Leave),
                ("security", Step::Leave)
            ])
        );
    }

    #[test]
    fn only_who_asks_for_it_drops_a_field() {
        let steps = steps(&wanted(Some(&["messages"]), true), &["calls", "messages"]);

        assert_eq!(steps, expected(&[("calls", Step::Drop), ("messages", Step::Keep), ("security", Step::Leave)]));
    }

    #[test]
    fn a_field_has_the_queues_of_all_its_routes() {
        let plans = wanted(None, false).fields(None);

        assert_eq!(plans[0].queues, ["messages", "messages-statuses"]);
        assert_eq!(plans[0].step, Step::Subscribe);
    }
}
