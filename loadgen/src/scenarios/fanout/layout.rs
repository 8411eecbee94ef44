//! Who hears whom: subscribers spread over channels, publishers that take all channels in turn.

use crate::clients::pubsub::Role;

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) subscribers: usize,
    pub(super) publishers: usize,
    pub(super) channels: usize,
    /// Channels that each subscriber hears, at most `channels`.
    pub(super) per_subscriber: usize,
}

impl Layout {
    /// Subscriber i hears the channels from `i * per_subscriber` on; publishers come behind the subscribers.
    pub(super) fn role(&self, run_id: u32, number: usize) -> Role {
        let name = |channel: usize| channel_name(run_id, channel % self.channels);
        match number < self.subscribers {
            true => {
                let first = number * self.per_subscriber;
                Role::Subscriber((first..first + self.per_subscriber).map(name).collect())
            }
            false => Role::Publisher((0..self.channels).map(name).collect()),
        }
    }

    /// Publisher and channel of a publication, by its number over all publishers: publisher p publishes to each
    /// channel in turn, so its sequence in a channel counts every one of them.
    pub(super) fn publication(&self, number: usize) -> (usize, usize) {
        (
            number % self.publishers,
            number / self.publishers % self.channels,
        )
    }

    /// Which of a subscriber's channels a channel is, if it is one.
    pub(super) fn place_of(&self, subscriber: usize, channel: usize) -> Option<usize> {
        if self.per_subscriber == self.channels {
            // Everybody hears everything: told without a division, for each of millions of deliveries a second.
            return Some(channel);
        }
        let first = subscriber * self.per_subscriber % self.channels;
        let place = (channel + self.channels - first) % self.channels;
        (place < self.per_subscriber).then_some(place)
    }

    /// Subscribers of a channel.
    pub(super) fn listeners(&self, channel: usize) -> u64 {
        let subscriptions = self.subscribers * self.per_subscriber;
        ((subscriptions + self.channels - 1 - channel) / self.channels) as u64
    }

    /// One publisher and one channel: everybody is sent the same.
    pub(super) fn is_the_same_for_all(&self) -> bool {
        (self.publishers, self.channels, self.per_subscriber) == (1, 1, 1)
    }
}

/// The name of a channel of this run.
pub(super) fn channel_name(run_id: u32, channel: usize) -> String {
    format!("fanout-{run_id:08x}-{channel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subscriber_hears_is_what_is_counted_for_it() {
        for (subscribers, channels, per_subscriber) in
            [(1, 1, 1), (7, 3, 1), (10, 10, 10), (5, 7, 3), (20, 4, 2)]
        {
            let layout = Layout {
                subscribers,
                publishers: 2,
                channels,
                per_subscriber,
            };
            for channel in 0..channels {
                let name = channel_name(1, channel);
                let mut count = 0;
                for subscriber in 0..subscribers {
                    let Role::Subscriber(names) = layout.role(1, subscriber) else {
                        panic!("a subscriber");
                    };
                    let place = names.iter().position(|heard| *heard == name);
                    assert_eq!(place, layout.place_of(subscriber, channel));
                    count += u64::from(place.is_some());
                }
                assert_eq!(count, layout.listeners(channel), "{layout:?} {channel}");
            }
        }
    }
}
