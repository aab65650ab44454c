# Secrets are made by AWS and written where they are read: neither the plan nor the state has them. They
# are stored first, and all that needs one reads it from there: an apply that was cut off goes on with
# the same.

ephemeral "aws_secretsmanager_random_password" "new" {
  for_each            = local.secrets
  password_length     = 32
  exclude_punctuation = true
}

resource "aws_ssm_parameter" "secret" {
  for_each         = local.secrets
  name             = "/${var.name}/secrets/${each.key}"
  type             = "SecureString"
  key_id           = aws_kms_key.this.arn
  value_wo         = ephemeral.aws_secretsmanager_random_password.new[each.key].random_password
  value_wo_version = each.key == "secret-key" ? 1 : var.secrets_version
}

ephemeral "aws_ssm_parameter" "secret" {
  for_each = local.secrets
  arn      = aws_ssm_parameter.secret[each.key].arn
}

locals {
  secrets = toset(["database", "platform", "replica", "api-key", "secret-key"])
  secret  = { for name, each in ephemeral.aws_ssm_parameter.secret : name => each.value }
  managed = var.valkey == "elasticache"
  # A certificate that signs itself, or ElastiCache's: what goes over the network is encrypted.
  tls               = local.managed ? "ssl_cert_reqs=required" : "ssl_cert_reqs=none"
  platform_password = local.managed ? var.elasticache_passwords.platform : local.secret["platform"]
  replica_password  = local.managed ? var.elasticache_passwords.replica : local.secret["replica"]
  replica_url       = "rediss://replica:${local.replica_password}@${local.valkey_host}:6379/0?${local.tls}"

  # Of Valkey's users, as in compose.yaml, which says why.
  rights = {
    platform = "~lpx:* &* +@all -@admin -@dangerous +info"
    replica  = "~lpx:{*#*}:* ~lpx:targets &lpx:* +@all -@admin -@dangerous +info -subscribe -psubscribe -ssubscribe"
  }

  # Each in the parameter of what wants it, whole: an address with its password.
  parameters = toset(["database-url", "redis-url", "secret-key", "api-key", "replicas", "valkey-users"])
  contents = {
    database-url = "postgresql+psycopg://loraplex:${local.secret["database"]}@${aws_db_instance.this.address}/loraplex?sslmode=require"
    redis-url    = "rediss://platform:${local.platform_password}@${local.valkey_host}:6379/0?${local.tls}"
    secret-key   = replace(replace(base64encode(local.secret["secret-key"]), "+", "-"), "/", "_")
    api-key      = "pb_${local.secret["api-key"]}"
    replicas     = "LORAPLEX_REDIS_URL=${local.replica_url}\nLORAPLEX_ADAPTER_STORE=s3://${local.bucket}/adapters\nLORAPLEX_ADAPTER_DISK=/tmp/adapters\nAWS_REGION=${data.aws_region.here.name}"
    valkey-users = <<-EOT
      user default off ~* &* +@all
      user platform on >${local.platform_password} ${local.rights.platform}
      user replica on >${local.replica_password} ${local.rights.replica}
    EOT
  }
}

resource "aws_ssm_parameter" "this" {
  for_each         = local.parameters
  name             = "/${var.name}/${each.key}"
  type             = "SecureString"
  key_id           = aws_kms_key.this.arn
  value_wo         = local.contents[each.key]
  value_wo_version = each.key == "secret-key" ? 1 : var.secrets_version
}
