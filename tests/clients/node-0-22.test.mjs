// The latest published Node SDK, against the server: the same checklist as the oldest.
import { registerWorker, TriggerAction } from 'iii-sdk';
import { checklist } from './sdk-checklist.mjs';

checklist('0.22.1', { registerWorker, TriggerAction, features: { metadata: true } });
