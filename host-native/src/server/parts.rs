//! The parts of a server, made and connected: in the order in which they need each other.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::StartError;
use super::group_store::{GroupStore, Holding, Place};
use super::readings::Sources;
use crate::auth::Auth;
use crate::channel::{self, Channels};
use crate::cluster::Places;
use crate::cluster::triggers::{SharedStreamTriggers, StreamTriggerOptions, TriggerKnowledge};
use crate::config::{Config, RedisConfig, RedisLayout, StoreConfig};
use crate::door::{DoorContext, SubscriberDoor, WorkerDoor};
use crate::engine::{
    Call, Immediate, JoinTriggers, LaneContext, LeaveTriggers, Notices, Registry, StateTriggers,
    StreamTriggers, TriggerType, Triggers, Waiting,
};
use crate::feed::Feed;
use crate::hub::Hub;
use crate::introspection::{self, Directory};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::redis_client::{KeyUse, RedisClient, RedisStartError};
use crate::state;
use crate::stream::{CustomStorage, StreamFunctions};
use crate::subscriber::Subscribers;
use crate::worker::Workers;

/// How long changes of the set of functions are gathered before they are told.
const FUNCTIONS_CHANGED_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Parts {
    pub(super) state_store: GroupStore,
    pub(super) registry: Arc<Registry>,
    pub(super) directory: Arc<Directory>,
    pub(super) functions_available: Arc<Notices>,
    /// Where several servers share them.
    pub(super) stream_triggers: Option<Arc<SharedStreamTriggers>>,
    pub(super) worker_door: WorkerDoor,
    pub(super) subscriber_door: SubscriberDoor,
    pub(super) sources: Arc<Sources>,
}

/// Whether our user may do at Redis what will be done there.
async fn check_permissions(
    client: &RedisClient,
    redis: &RedisConfig,
) -> Result<(), RedisStartError> {
    let prefix = &redis.key_prefix;
    if redis.layout == RedisLayout::Native {
        return client.check_permissions(prefix, KeyUse::Groups).await;
    }
    client.check_permissions(prefix, KeyUse::Servers).await?;
    client.check_permissions("stream:", KeyUse::Items).await?;
    client.check_permissions("state:", KeyUse::Items).await
}

impl Parts {
    /// Errors: [`StartError`].
    pub(super) async fn new(config: &Config) -> Result<Self, StartError> {
        let bounds = config.bounds;
        let metrics = Arc::new(Metrics::default());
        let lifecycle = Arc::new(Lifecycle::default());
        let redis = match &config.store {
            StoreConfig::Redis(redis) => {
                let client = RedisClient::connect(redis.options(), metrics.clone()).await?;
                check_permissions(&client, redis).await?;
                Some(client)
            }
            _ => None,
        };
        let server_id = Uuid::new_v4().to_string();
        let registry = Arc::new(Registry::new(server_id.into(), metrics.clone()));
        let waiting = Waiting::default();
        let mut events = Events::new(config, &registry, &waiting, &metrics);
        let places = Arc::<Places>::default();
        let knowledge = Arc::new(TriggerKnowledge::new(places.clone()));
        let is_compatible = matches!(
            &config.store,
            StoreConfig::Redis(redis) if redis.layout == RedisLayout::Compatible
        );
        let new_feed = |is_counted| {
            let runtime = tokio::runtime::Handle::current();
            Feed::new(
                runtime,
                bounds.feed_pending_max,
                is_counted,
                metrics.clone(),
            )
        };
        let feed = new_feed(!is_compatible);
        // In an engine's layout, triggers follow what this instance commits, and nothing else.
        let commits = new_feed(is_compatible);
        commits.start(vec![events.stream.clone()]);
        let place = Place {
            config: &config.store,
            redis: redis.as_ref(),
            bounds: &bounds,
            metrics: &metrics,
        };
        let store = GroupStore::open(
            &place,
            Holding::Streams {
                feed: feed.clone(),
                commits,
                triggers: knowledge.clone(),
            },
        )?;
        if let (StoreConfig::Redis(redis), Some((client, store))) = (&config.store, store.redis()) {
            let options = StreamTriggerOptions {
                prefix: redis.key_prefix.clone(),
                heartbeat: redis.heartbeat,
                lease: redis.instance_gone_time,
                resume: redis.trigger_resume_time,
            };
            events.shared_stream = Some(SharedStreamTriggers::new(
                events.lanes.clone(),
                client,
                store,
                options,
                knowledge,
                places.clone(),
            ));
        }
        let hub = Arc::new(Hub::new(
            bounds.join_held_max,
            store.audience(),
            metrics.clone(),
        ));
        match redis {
            // Its changes come from all instances, those for triggers to one of them.
            Some(_) => feed.start(vec![hub.clone()]),
            None => feed.start(vec![hub.clone(), events.stream.clone()]),
        }
        let state_store = GroupStore::open(&place, Holding::State(events.state.clone()))?;
        state::register(&registry, &state_store.shared(), &events.state);
        let triggers = events.register(&registry);
        let custom = Arc::new(CustomStorage::new(
            registry.clone(),
            store.shared(),
            match &config.store {
                StoreConfig::Custom { name } => Some(name.clone()),
                _ => None,
            },
            tokio::runtime::Handle::current(),
        ));
        let functions = Arc::new(StreamFunctions::new(
            store.shared(),
            custom.clone(),
            &metrics,
        ));
        functions.register(&registry);
        let workers = Arc::new(Workers::new(
            registry.clone(),
            triggers.clone(),
            events.workers_available,
            config.workers.limits,
            metrics.clone(),
        ));
        let describing = workers.clone();
        registry.register_builtin(
            "engine::workers::register",
            Arc::new(Immediate(move |call: &Call<'_>| describing.describe(call))),
        );
        let directory = Arc::new(Directory::new(
            registry.clone(),
            triggers,
            workers.clone(),
            places,
        ));
        introspection::register(&registry, &directory);
        let channels = Arc::new(Channels::default());
        channel::register(&registry, &channels);
        let context = DoorContext {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
        };
        let worker_door = WorkerDoor {
            workers: workers.clone(),
            channels,
            token: config.workers.token.as_deref().map(Into::into),
            context: context.clone(),
        };
        let subscribers = Arc::new(Subscribers::new(
            hub.clone(),
            custom,
            functions,
            events.join,
            events.leave,
            metrics.clone(),
            config.subscribers.limits,
        ));
        let subscriber_door = SubscriberDoor {
            subscribers: subscribers.clone(),
            auth: auth(config, &registry),
            context,
        };
        let sources = Arc::new(Sources {
            lifecycle,
            metrics,
            workers,
            subscribers,
            hub,
            store,
            history_bytes_max: bounds.history_total_bytes_max,
            state_store: state_store.clone(),
            store_config: config.store.clone(),
            redis,
            waiting,
        });
        Ok(Self {
            state_store,
            registry,
            directory,
            functions_available: events.functions_available,
            stream_triggers: events.shared_stream,
            worker_door,
            subscriber_door,
            sources,
        })
    }
}

fn auth(config: &Config, registry: &Arc<Registry>) -> Arc<Auth> {
    Arc::new(Auth::new(
        registry.clone(),
        config.auth.function_id.clone(),
        config.auth.time_max,
        config.auth.require_context,
        &config.auth.allowed_origins,
        config.auth.default_grants.clone(),
    ))
}

/// The trigger types of this server.
struct Events {
    lanes: LaneContext,
    stream: Arc<StreamTriggers>,
    /// In place of `stream` where several servers share the groups.
    shared_stream: Option<Arc<SharedStreamTriggers>>,
    join: Arc<JoinTriggers>,
    leave: Arc<LeaveTriggers>,
    state: Arc<StateTriggers>,
    workers_available: Arc<Notices>,
    functions_available: Arc<Notices>,
}

impl Events {
    fn new(
        config: &Config,
        registry: &Arc<Registry>,
        waiting: &Waiting,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let lanes = LaneContext {
            registry: registry.clone(),
            runtime: tokio::runtime::Handle::current(),
            time_max: config.bounds.handler_time_max,
            open_max: config.bounds.trigger_open_max,
            queue_max: config.bounds.trigger_queue_max,
            waiting: waiting.clone(),
            metrics: metrics.clone(),
        };
        let guards = LaneContext {
            time_max: config.join_guards.time_max,
            ..lanes.clone()
        };
        Self {
            stream: Arc::new(StreamTriggers::new(lanes.clone())),
            join: Arc::new(JoinTriggers::new(guards, config.join_guards.deny_on_error)),
            leave: Arc::new(LeaveTriggers::new(lanes.clone())),
            state: Arc::new(StateTriggers::new(lanes.clone())),
            workers_available: Arc::new(Notices::new(lanes.clone())),
            functions_available: Arc::new(Notices::new(lanes.clone())),
            shared_stream: None,
            lanes,
        }
    }

    /// The table of triggers, with these types.
    fn register(&self, registry: &Arc<Registry>) -> Arc<Triggers> {
        let triggers = Arc::new(Triggers::new(registry.server().clone()));
        let stream: Arc<dyn TriggerType> = match &self.shared_stream {
            Some(shared) => shared.clone(),
            None => self.stream.clone(),
        };
        let types: [(&str, &str, Arc<dyn TriggerType>); 6] = [
            ("stream", "an item was created, updated or deleted", stream),
            (
                "stream:join",
                "a subscription begins; may refuse it",
                self.join.clone(),
            ),
            (
                "stream:leave",
                "a subscription has ended",
                self.leave.clone(),
            ),
            (
                "state",
                "a key of a scope was created, updated or deleted",
                self.state.clone(),
            ),
            (
                "engine::workers-available",
                "a worker came, described itself, or went",
                self.workers_available.clone(),
            ),
            (
                "engine::functions-available",
                "the set of functions changed",
                self.functions_available.clone(),
            ),
        ];
        for (id, description, provider) in types {
            triggers.register_builtin_type(id, description, provider);
        }
        triggers
    }
}

/// Tells of new and gone functions, together for those that change in quick succession.
pub(super) async fn announce_functions(
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    notices: Arc<Notices>,
) {
    let mut changes = registry.changes();
    while changes.changed().await.is_ok() {
        tokio::time::sleep(FUNCTIONS_CHANGED_PAUSE).await;
        notices.tell(|| directory.functions_changed());
    }
}
