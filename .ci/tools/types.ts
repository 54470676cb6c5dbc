// What the tests of deploy/ check files against, from the types that the projects publish. check.mjs makes
// JSON schemas of them.
import type { IDeployment } from 'kubernetes-models/apps/v1/Deployment';
import type { IIngress } from 'kubernetes-models/networking.k8s.io/v1/Ingress';
import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import type { IConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { IPersistentVolumeClaim } from 'kubernetes-models/v1/PersistentVolumeClaim';
import type { IService } from 'kubernetes-models/v1/Service';
import type { ICertificate } from '@kubernetes-models/cert-manager/cert-manager.io/v1/Certificate';
import type { IPrometheusRule } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule';
import type { IServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor';
import type { Dashboard as AnyDashboard, FieldConfigSource, Panel, RowPanel } from '@grafana/schema';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as Table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** The objects of the chart: each type is called as its kind. */
export type Certificate = ICertificate;
export type ConfigMap = IConfigMap;
export type Deployment = IDeployment;
export type Ingress = IIngress;
export type NetworkPolicy = INetworkPolicy;
export type PersistentVolumeClaim = IPersistentVolumeClaim;
export type PrometheusRule = IPrometheusRule;
export type Service = IService;
export type ServiceMonitor = IServiceMonitor;

/** A query to Prometheus. The package has no type for it. */
interface Query {
  refId: string;
  datasource: NonNullable<Panel['datasource']>;
  expr: string;
  legendFormat?: string;
  instant?: boolean;
  range?: boolean;
  format?: 'time_series' | 'table';
  editorMode: 'code' | 'builder';
}

interface Shows<Type, Options, Custom> extends Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Type;
  options: Options;
  fieldConfig: FieldConfigSource<Custom>;
  targets: Query[];
}

/** The panels of the dashboard: each type is called as in its `type`. */
export type row = RowPanel;
export type stat = Shows<'stat', Stat.Options, Record<string, never>>;
export type table = Shows<'table', Table.Options, Table.FieldConfig>;
export type timeseries = Shows<'timeseries', TimeSeries.Options, TimeSeries.FieldConfig>;

/** The dashboard around its panels. */
export interface Dashboard extends Omit<AnyDashboard, 'panels'> {
  panels: Array<{ [member: string]: unknown }>;
}
