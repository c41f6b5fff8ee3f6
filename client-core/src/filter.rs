//! Topic filters as the application gives them (section 4.7).

use whimbrel_codec::{Subscription, Version};

use crate::Error;
use crate::connection::Allowed;

/// The rules of the protocol, and what this server supports.
pub(crate) fn check(
    version: Version,
    subscription: &Subscription<'_>,
    allowed: &Allowed,
) -> Result<(), Error> {
    let filter = subscription.filter;
    if !is_valid(filter) {
        return Err(Error::TopicFilterInvalid);
    }
    if !version.is_v5() {
        return Ok(());
    }
    if !allowed.wildcard_subscriptions && filter.contains(['+', '#']) {
        return Err(Error::SubscriptionNotSupported);
    }
    let Some(shared) = filter.strip_prefix("$share/") else { return Ok(()) };
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.3-4]
    let (name, filter) = shared.split_once('/').unwrap_or_default();
    if name.is_empty() || name.contains(['+', '#']) || filter.is_empty() || subscription.no_local {
        return Err(Error::TopicFilterInvalid);
    }
    if allowed.shared_subscriptions { Ok(()) } else { Err(Error::SubscriptionNotSupported) }
}

/// [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2]
pub(crate) fn is_valid(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wildcard = level.contains(['+', '#']);
        if wildcard && level != "+" && !(level == "#" && levels.peek().is_none()) {
            return false;
        }
    }
    !filter.is_empty() && !filter.contains('\0')
}
