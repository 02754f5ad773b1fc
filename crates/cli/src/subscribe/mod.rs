//! Subscribes a Meta app to webhook fields: compares its subscriptions with the goal, and changes them.

pub mod graph;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use whatsapp_webhook::{credentials::AppCredentials, routes::CATCH_ALL};

use crate::{
    aws::stack_info::StackInfo,
    queues::verify_queue::VERIFY_FIELD,
    subscribe::graph::{Callback, Graph, GraphError, Id, OBJECT, PhoneNumber, SubscribedApp, Subscription, Token},
};

/// The field of customers' messages while Meta Business Agent answers a chat.
pub const STANDBY: &str = "standby";

/// The subscriptions that an app should have.
#[derive(Debug)]
pub struct Goal {
    /// The app.
    pub app: Id,
    /// The accounts whose events Meta should send to the app.
    pub accounts: Vec<Id>,
    /// The callback URL that Meta should send events to.
    pub callback_url: String,
    /// The fields to subscribe to. `None` means all fields with a queue.
    pub fields: Option<Vec<String>>,
    /// Whether to unsubscribe from all other fields.
    pub replace: bool,
    /// The goal for overrides of accounts and phone numbers. `None` means to keep them.
    pub overrides: Option<OverrideGoal>,
    /// The queues of each field with a queue.
    pub queues_by_field: BTreeMap<String, Vec<String>>,
}

/// The current subscriptions, and the actions that lead to the goal.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The app.
    pub app: Id,
    /// The callback URL that Meta sends events to now, if there is one.
    pub current_callback_url: Option<String>,
    /// Whether Meta sends events to the current callback URL.
    pub is_active: bool,
    /// The callback URL of the goal.
    pub callback_url: String,
    /// Every field that has a queue, a subscription, or belongs to the goal.
    pub fields: Vec<FieldPlan>,
    /// The accounts that were named.
    pub accounts: Vec<AccountPlan>,
}

/// The plan for one field.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FieldPlan {
    /// The name of the field.
    pub field: String,
    /// The queues of the field. If it has none, its events are stored on the catch-all queue.
    pub queues: Vec<String>,
    /// The action that leads to the goal.
    pub action: FieldAction,
}

/// The action for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldAction {
    /// Keep the subscription.
    Keep,
    /// Subscribe.
    Subscribe,
    /// Unsubscribe.
    Unsubscribe,
    /// Do nothing: the field has a queue, but no subscription, and does not belong to the goal.
    Leave,
}

/// The plan for one account.
#[derive(Debug, Serialize)]
pub struct AccountPlan {
    /// The id of the account.
    pub account: Id,
    /// Whether Meta sends the events of the account to the app.
    pub is_subscribed: bool,
    /// Another callback URL for the account's events about messages, if one is set.
    pub override_callback_uri: Option<String>,
    /// The action for this override.
    pub override_action: OverrideAction,
    /// The phone numbers of the account.
    pub numbers: Vec<NumberPlan>,
}

/// The plan for one phone number.
#[derive(Debug, Serialize)]
pub struct NumberPlan {
    /// The id of the phone number.
    pub number: String,
    /// Another callback URL for the number's events about messages, if one is set.
    pub override_callback_uri: Option<String>,
    /// The action for this override.
    pub override_action: OverrideAction,
    /// The URL for the number's events about messages: that of the number, the account or the app. Meta sends none while the account
    /// is not subscribed.
    pub effective_callback_url: Option<String>,
}

/// The goal for overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OverrideGoal {
    /// Remove the overrides that lead elsewhere, so that the app's callback URL applies.
    Clear,
    /// Set the callback URL as the override of each account, and remove its phone numbers' overrides that lead elsewhere.
    Set,
}

/// The action for an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OverrideAction {
    /// Do nothing.
    Keep,
    /// Remove the override.
    Clear,
    /// Set it to the callback URL of the goal.
    Set,
}

/// The access tokens for calls to Meta.
#[derive(Debug)]
pub struct Tokens {
    /// The token of the app.
    pub app: Token,
    /// The token for the accounts, if there is one.
    pub accounts: Option<Token>,
}

impl Goal {
    /// Returns the queues of each field, without the prefix of the stack.
    #[must_use]
    pub fn queues_by_field(stack: &StackInfo) -> BTreeMap<String, Vec<String>> {
        let prefix = format!("{}-", stack.stack);
        let mut queues_by_field = BTreeMap::<_, Vec<_>>::new();
        for (route, queues) in stack.routes.iter().filter(|(route, _)| ![CATCH_ALL, VERIFY_FIELD].contains(route)) {
            let field = route.split(['.', '@']).next().unwrap_or(route);
            let names = queues.map(|queue| queue.name.strip_prefix(&prefix).unwrap_or(&queue.name).to_owned());
            queues_by_field.entry(field.to_owned()).or_default().extend(names);
        }
        for queues in queues_by_field.values_mut() {
            queues.sort_unstable();
            queues.dedup();
        }
        queues_by_field
    }

    /// Reads the current subscriptions and compares them with the goal.
    pub async fn plan(&self, graph: &Graph, tokens: &Tokens) -> Result<Plan, GraphError> {
        let subscriptions = graph.subscriptions(&self.app, &tokens.app).await?;
        let current = subscriptions.into_iter().find(|subscription| subscription.object == OBJECT);
        let app_url = current.as_ref().map(|current| current.callback_url.clone());
        let token = tokens.accounts.as_ref().unwrap_or(&tokens.app);
        let mut accounts = Vec::new();
        for account in &self.accounts {
            let apps = graph.subscribed_apps(account, token).await?;
            let numbers = graph.phone_numbers(account, token).await?;
            let own = apps.into_iter().find(|other| other.app.id == self.app.to_string());
            accounts.push(self.plan_account(account, own, numbers, app_url.as_deref()));
        }
        Ok(Plan {
            app: self.app.clone(),
            fields: self.plan_fields(current.as_ref()),
            is_active: current.as_ref().is_some_and(|current| current.active),
            current_callback_url: app_url,
            callback_url: self.callback_url.clone(),
            accounts,
        })
    }

    fn plan_account(
        &self,
        account: &Id,
        own: Option<SubscribedApp>,
        numbers: Vec<PhoneNumber>,
        app_url: Option<&str>,
    ) -> AccountPlan {
        let is_subscribed = own.is_some();
        let of_account = own.and_then(|own| own.override_callback_uri).filter(|url| !url.is_empty());
        let leads_elsewhere = |url: Option<&String>| url.is_some_and(|url| *url != self.callback_url);
        let numbers = numbers.into_iter().map(|PhoneNumber { id, webhook_configuration }| {
            let of_number = webhook_configuration.phone_number.filter(|url| !url.is_empty());
            let is_removed = self.overrides.is_some() && leads_elsewhere(of_number.as_ref());
            NumberPlan {
                number: id,
                override_action: if is_removed { OverrideAction::Clear } else { OverrideAction::Keep },
                effective_callback_url: of_number.as_deref().or(of_account.as_deref()).or(app_url).map(str::to_owned),
                override_callback_uri: of_number,
            }
        });
        let override_action = match self.overrides {
            Some(OverrideGoal::Clear) if leads_elsewhere(of_account.as_ref()) => OverrideAction::Clear,
            Some(OverrideGoal::Set) if of_account.as_ref() != Some(&self.callback_url) => OverrideAction::Set,
            _ => OverrideAction::Keep,
        };
        AccountPlan {
            account: account.clone(),
            is_subscribed,
            override_action,
            numbers: numbers.collect(),
            override_callback_uri: of_account,
        }
    }

    fn plan_fields(&self, current: Option<&Subscription>) -> Vec<FieldPlan> {
        let current: BTreeSet<_> =
            current.iter().flat_map(|current| &current.fields).map(|field| field.name.clone()).collect();
        let goal: BTreeSet<_> = self
            .fields
            .as_ref()
            .map_or_else(|| self.queues_by_field.keys().cloned().collect(), |fields| fields.iter().cloned().collect());
        let all: BTreeSet<_> = self.queues_by_field.keys().chain(&current).chain(&goal).collect();
        all.into_iter()
            .map(|field| FieldPlan {
                field: field.clone(),
                queues: self.queues_by_field.get(field).cloned().unwrap_or_default(),
                action: match (current.contains(field), goal.contains(field)) {
                    (true, false) if self.replace => FieldAction::Unsubscribe,
                    (true, _) => FieldAction::Keep,
                    (false, true) => FieldAction::Subscribe,
                    (false, false) => FieldAction::Leave,
                },
            })
            .collect()
    }
}

impl FieldAction {
    /// Whether the app is subscribed to the field after the plan is applied.
    fn is_subscribed(self) -> bool {
        matches!(self, Self::Keep | Self::Subscribe)
    }
}

impl AccountPlan {
    fn is_done(&self) -> bool {
        let is_kept = |action| action == OverrideAction::Keep;
        let mut numbers = self.numbers.iter();
        self.is_subscribed && is_kept(self.override_action) && numbers.all(|number| is_kept(number.override_action))
    }
}

impl Plan {
    /// Whether the app's subscription is as it should be.
    #[must_use]
    pub fn is_app_done(&self) -> bool {
        let is_done = |field: &FieldPlan| matches!(field.action, FieldAction::Keep | FieldAction::Leave);
        let sends_to_url = self.is_active && self.current_callback_url.as_ref() == Some(&self.callback_url);
        sends_to_url && self.fields.iter().all(is_done)
    }

    /// Whether app and accounts are as they should be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_app_done() && self.accounts.iter().all(AccountPlan::is_done)
    }

    /// Returns the fields that the app is or will be subscribed to, but that have no queue of their own.
    #[must_use]
    pub fn fields_without_queue(&self) -> Vec<&str> {
        let without_queue = self.fields.iter().filter(|field| field.queues.is_empty() && field.action.is_subscribed());
        without_queue.map(|field| field.field.as_str()).collect()
    }

    /// Whether the app receives messages, but not those that arrive under [`STANDBY`], on a queue of their own.
    #[must_use]
    pub fn lacks_standby(&self) -> bool {
        let subscribed =
            |name: &str| self.fields.iter().find(|field| field.field == name && field.action.is_subscribed());
        subscribed("messages").is_some() && subscribed(STANDBY).is_none_or(|field| field.queues.is_empty())
    }

    /// Applies the plan. Subscribes the app before its accounts, because Meta sends an account's events only for
    /// fields to which the app is subscribed.
    pub async fn apply(&self, graph: &Graph, tokens: &Tokens, verify_token: &str) -> Result<(), GraphError> {
        if !self.is_app_done() {
            let belongs = |field: &&FieldPlan| field.action.is_subscribed();
            let fields: Vec<_> = self.fields.iter().filter(belongs).map(|field| field.field.clone()).collect();
            graph.subscribe(&self.app, &tokens.app, &self.callback_url, verify_token, &fields).await?;
        }
        let token = tokens.accounts.as_ref().unwrap_or(&tokens.app);
        let callback = Callback { url: &self.callback_url, verify_token };
        for account in &self.accounts {
            match account.override_action {
                OverrideAction::Set => graph.override_account(&account.account, token, Some(callback)).await?,
                OverrideAction::Clear => graph.override_account(&account.account, token, None).await?,
                OverrideAction::Keep if !account.is_subscribed => {
                    graph.subscribe_account(&account.account, token).await?;
                }
                OverrideAction::Keep => (),
            }
            // After the account, so that no event of a number goes to an old URL of the account.
            for number in account.numbers.iter().filter(|number| number.override_action == OverrideAction::Clear) {
                graph.override_number(&number.number, token, None).await?;
            }
        }
        Ok(())
    }
}

impl Tokens {
    /// Finds the app's secret among those of the stack, which several apps may share, and creates the tokens.
    pub async fn find(
        graph: &Graph,
        app: &Id,
        credentials: &AppCredentials,
        access_token: Option<&str>,
    ) -> Result<Self, GraphError> {
        let secrets = &credentials.app_secrets;
        let mut index = 0;
        loop {
            let token = Token::of_app(app, &secrets[index]);
            match graph.subscriptions(app, &token).await {
                Err(error) if error.is_invalid_token() && index + 1 < secrets.len() => index += 1,
                response => {
                    response?;
                    return Ok(Self {
                        app: token,
                        accounts: access_token.map(|user| Token::of_user(user, &secrets[index])),
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

    fn goal(fields: Option<&[&str]>, replace: bool) -> Goal {
        Goal {
            app: "1".parse().unwrap(),
            accounts: Vec::new(),
            callback_url: "https://new.example/webhook".to_owned(),
            fields: fields.map(|fields| fields.iter().map(|&field| field.to_owned()).collect()),
            replace,
            overrides: None,
            queues_by_field: Goal::queues_by_field(&StackInfo {
                routes: StackInfo::routes_for_tests(
                    r#","messages":["a-stack-messages","a-stack-archive"],"messages.statuses":"a-stack-messages-statuses",
                    "messages@106540352242922":"a-stack-brand","messages":"a-stack-crm","security":"a-stack-security""#,
                ),
                ..StackInfo::for_tests()
            }),
        }
    }

    fn actions(goal: &Goal, current: &[&str]) -> Vec<(String, FieldAction)> {
        let fields = current.iter().map(|&name| Field { name: name.to_owned() }).collect();
        let current = Subscription { object: OBJECT.to_owned(), callback_url: String::new(), active: true, fields };
        goal.plan_fields(Some(&current)).into_iter().map(|plan| (plan.field, plan.action)).collect()
    }

    fn expected(actions: &[(&str, FieldAction)]) -> Vec<(String, FieldAction)> {
        actions.iter().map(|&(field, action)| (field.to_owned(), action)).collect()
    }

    #[test]
    fn fields_with_a_queue_are_added() {
        let actions = actions(&goal(None, false), &["calls", "messages"]);

        assert_eq!(
            actions,
            expected(&[
                ("calls", FieldAction::Keep),
                ("messages", FieldAction::Keep),
                ("security", FieldAction::Subscribe)
            ])
        );
    }

    #[test]
    fn named_fields_are_added_and_others_remain() {
        let actions = actions(&goal(Some(&["flows"]), false), &["calls"]);

        assert_eq!(
            actions,
            expected(&[
                ("calls", FieldAction::Keep),
                ("flows", FieldAction::Subscribe),
                ("messages", FieldAction::Leave),
                ("security", FieldAction::Leave)
            ])
        );
    }

    #[test]
    fn replace_unsubscribes_from_other_fields() {
        let actions = actions(&goal(Some(&["messages"]), true), &["calls", "messages"]);

        assert_eq!(
            actions,
            expected(&[
                ("calls", FieldAction::Unsubscribe),
                ("messages", FieldAction::Keep),
                ("security", FieldAction::Leave)
            ])
        );
    }

    #[test]
    fn field_has_the_queues_of_all_its_routes() {
        let plans = goal(None, false).plan_fields(None);

        assert_eq!(plans[0].queues, ["archive", "brand", "crm", "messages", "messages-statuses"]);
        assert_eq!(plans[0].action, FieldAction::Subscribe);
    }
}
