-- What analysts read: no markers, and rows of the same key summed whether their parts were merged or not.
CREATE OR REPLACE VIEW {database}.evaluations AS
SELECT e.project AS project, e.environment AS environment, e.feature AS feature, e.variable AS variable, e.hour AS hour,
       e.app_name AS app_name, e.platform AS platform, e.sdk_type AS sdk_type, e.source AS source,
       sum(e.yes) AS yes, sum(e.no) AS no, sum(e.yes + e.no + e.count) AS evaluations
FROM {database}.evaluations_hourly AS e
WHERE e.variant = '' AND NOT startsWith(e.project, '__')
GROUP BY e.project, e.environment, e.feature, e.variable, e.hour, e.app_name, e.platform, e.sdk_type, e.source;

CREATE OR REPLACE VIEW {database}.variants AS
SELECT e.project AS project, e.environment AS environment, e.feature AS feature, e.variable AS variable,
       e.variant AS variant, e.hour AS hour,
       e.app_name AS app_name, e.platform AS platform, e.sdk_type AS sdk_type, e.source AS source,
       sum(e.count) AS count
FROM {database}.evaluations_hourly AS e
WHERE e.variant != '' AND NOT startsWith(e.project, '__')
GROUP BY e.project, e.environment, e.feature, e.variable, e.variant, e.hour, e.app_name, e.platform, e.sdk_type,
         e.source
