// The oldest published Node SDK that speaks this protocol, against the server: the whole checklist.
import { registerWorker, TriggerAction } from 'iii-sdk-0-11';
import { checklist } from './sdk-checklist.mjs';

checklist('0.11.6', { registerWorker, TriggerAction });
